// What scrolls sideways can be reached with the keyboard, and only that.
function reachable() {
  for (const box of document.querySelectorAll("article pre, .table-wrapper, .math-scroll"))
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
}
addEventListener("load", reachable);
addEventListener("resize", reachable);
