// A page of the book in JupyterLite, which its button opens in a tab of its own: all cells are run.
async function runAll(view) {
  const until = async (look) => {
    for (;;) {
      const found = look();
      if (found) return found;
      // a view that was closed is waited for no longer, nor does anything come of it
      await new Promise((resolve) => view.closed || setTimeout(resolve, 100));
    }
  };
  const app = await until(() => view.jupyterapp);
  const panel = await until(() => app.shell.currentWidget?.sessionContext && app.shell.currentWidget);
  await panel.sessionContext.ready;
  return { panel, done: app.commands.execute("notebook:run-all-cells") };
}

addEventListener("click", (event) => {
  const link = event.target.closest?.("a.in-the-tab");
  const view = link && window.open(link.href);
  if (!view) return;
  event.preventDefault();
  runAll(view);
});
