"""Results on paper and on disk: the tables that a person reads, bench/results.json, and the
pictures drawn from it.
"""

import json
from pathlib import Path

RESULTS = Path(__file__).with_name("results.json")
PICTURES = Path(__file__).with_name("pictures")


# ---- results.json: {"format": 1, "machines": {name: about}, "targets": [rows], "tables": {section:
# {...}}}


def read(path=RESULTS):
    "The results in `path`, or empty ones."
    empty = dict(format=1, machines={}, targets=[], tables={})
    try:
        results = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return empty
    if results.get("format") != 1:
        raise ValueError(
            f"{path} is not a file of results that this version can read; move it away."
        )
    return results


def merge(results, section, measured, machine, other=None, quick=False):
    """`results` with one section replaced by what was just `measured` on `machine`; the other
    sections stay as they are, with the machine they were measured on.

    `other`: how many cores were busy with other work meanwhile; `quick`: tiny sizes, no
    measurement.
    """
    name = f"{machine['cpu']}, {machine['cores']} cores, {machine.get('kernel', 'unknown kernel')}"
    rows = [row for row in results["targets"] if row["section"] != section]
    rows += [dict(section=section, **row, machine=name) for row in measured["targets"]]
    tables = results["tables"] | {
        section: dict(measured["tables"], machine=name, other_work=other, quick=quick)
    }
    used = {row["machine"] for row in rows} | {table["machine"] for table in tables.values()}
    machines = {k: v for k, v in (results["machines"] | {name: machine}).items() if k in used}
    return dict(format=1, machines=machines, targets=rows, tables=tables)


def write(results, path=RESULTS):
    "Write the results, whole or not at all."
    from biolearn.core.files import (
        # here, not above: it loads NumPy, and the benchmark settles its environment first
        write_whole,
    )

    with write_whole(path) as part:
        part.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


# ---- tables --------------------------------------------------------------------------------------


def columns(rows, titles):
    "Lines of a table: text to the left, numbers to the right."
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(titles), *rows]) for i in range(len(titles))]
    left = [i for i in range(len(titles)) if not any(row[i][:1].isdigit() for row in rows)]
    line = lambda row: "  ".join(
        cell.ljust(w) if i in left else cell.rjust(w)
        for i, (cell, w) in enumerate(zip(row, widths))
    ).rstrip()
    return [line(titles), line(["-" * w for w in widths]), *map(line, rows)]


def number(value):
    "Three or four digits, without an exponent."
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def target_lines(rows):
    "The table of targets."
    verdict = {True: "yes", False: "NO", None: ""}
    cells = [
        (
            row["name"],
            number(row["median"]),
            ""
            if row["range"] is None
            else f"{number(row['range'][0])} to {number(row['range'][1])}",
            row["unit"] if row["median"] is not None else "",
            row["target"] or "",
            verdict[row["holds"]] if row["target"] else "",
            row["note"],
        )
        for row in rows
    ]
    return columns(cells, ("measured", "median", "range", "unit", "target", "holds", "note"))


def time_lines(table):
    "The table of {label: median, range, n}."
    cells = [
        (
            label,
            number(row["median"]),
            f"{number(row['range'][0])} to {number(row['range'][1])}",
            row["n"],
        )
        for label, row in table.items()
    ]
    return columns(cells, ("", "median", "range", "turns"))


def section_lines(section, results):
    "All tables of one section as lines."
    trial = (
        ["A trial at tiny sizes (--quick): these are no measurements."]
        if results["tables"].get(section, {}).get("quick")
        else []
    )
    lines = [
        f"== {section}",
        *trial,
        *busy_lines(results["tables"].get(section, {}).get("other_work")),
        *target_lines([row for row in results["targets"] if row["section"] == section]),
    ]
    for title, table in results["tables"].get(section, {}).items():
        if title in ("machine", "other_work", "quick", "curves"):
            continue
        lines += ["", f"{title}:"]
        first = next(iter(table.values()), None)
        if isinstance(first, dict) and "median" in first:
            lines += time_lines(table)
        elif isinstance(first, dict):
            parts = list(dict.fromkeys(part for row in table.values() for part in row))
            lines += columns(
                [
                    (label, *(number(row.get(part)) for part in parts))
                    for label, row in table.items()
                ],
                ("", *parts),
            )
        else:
            lines += columns([(label, number(value)) for label, value in table.items()], ("", ""))
    return lines


def busy_lines(other):
    "A warning, if there is one to give."
    if other is None or other < 0.2:
        return []
    return [
        f"Other work kept {other:.1f} cores busy meanwhile: times of several threads mean little on "
        "a busy machine. Stop it and run this section again."
    ]


def machine_lines(machine):
    "What was measured on what."
    numba = f"numba {machine['numba']}" if machine.get("numba") else "no numba"
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}; "
        f"Python {machine['python']}, NumPy {machine['numpy']}, {numba}",
        f"BLAS: {'; '.join(machine['blas']) or 'unknown (threadpoolctl is not installed)'}",
    ]
    if machine.get("set_aside"):
        lines.append(f"Set aside for the run: {machine['set_aside']} in the environment")
    return lines


# ---- pictures ------------------------------------------------------------------------------------

PART_COLORS = dict(
    products="blue",
    elementwise="sky",
    noise="orange",
    optimiser="vermilion",
    data="green",
    rest="black",
)


def profile_figure(bars):
    """One stacked bar for each version of the training step; `bars`: {version: {part:
    milliseconds}}.
    """
    from biolearn.plotting import COLORS, freeze_layout, new_figure, style

    longest = max(sum(max(0.0, v) for v in parts.values()) for parts in bars.values())
    with style():
        fig = new_figure(6.5, 0.9 + 0.55 * len(bars))
        ax = fig.add_subplot()
        for y, parts in enumerate(bars.values()):
            left = 0.0
            for part, value in ((part, max(0.0, value)) for part, value in parts.items()):
                ax.barh(
                    y,
                    value,
                    left=left,
                    height=0.6,
                    color=COLORS[PART_COLORS[part]],
                    edgecolor="white",
                    linewidth=0.5,
                    label=part,
                )
                if value > 0.04 * longest:
                    ax.text(
                        left + value / 2,
                        y,
                        f"{value:.1f}",
                        ha="center",
                        va="center",
                        fontsize=8,
                        color="black" if part in ("elementwise", "noise") else "white",
                    )
                left += value
            ax.text(
                left + 0.01 * longest, y, f"{left:.1f}", va="center", fontsize=8.5, weight="bold"
            )
        handles = dict(zip(*ax.get_legend_handles_labels()[::-1]))
        shown = [part for part in PART_COLORS if part in handles]
        ax.legend(
            [handles[part] for part in shown],
            shown,
            ncols=len(shown),
            loc="lower center",
            bbox_to_anchor=(0.45, 1.0),
            columnspacing=1.2,
            handlelength=1.2,
        )
        ax.set_yticks(
            range(len(bars)),
            [
                {
                    "in place": "exported,\nNumPy alone",
                    "compiled": "exported,\ncompiled",
                }.get(version, version)
                for version in bars
            ],
        )
        ax.set_xlim(0, 1.08 * longest)
        ax.invert_yaxis()
        ax.set_xlabel("milliseconds per training step")
        ax.set_title("Each version spends less time outside the products", pad=26)
        return freeze_layout(fig)


def scaling_figure(curves):
    "Cost of one example, and of its products alone, against width, depth and batch size."
    from biolearn.plotting import COLORS, freeze_layout, new_figure, style

    with style():
        fig = new_figure(6.5, 2.6)
        axes = fig.subplots(1, len(curves), sharey=True)
        for ax, (name, curve) in zip(axes, curves.items()):
            ax.plot(
                curve["x"],
                curve["biolearn"],
                "o-",
                ms=4,
                color=COLORS["blue"],
                label="training step",
            )
            ax.plot(
                curve["x"],
                curve["products"],
                "s--",
                ms=4,
                color=COLORS["vermilion"],
                label="its products alone",
            )
            ax.set_yscale("log")
            ax.set_xlabel(name.replace("h_1", "$h_1$"))
            if "layers" not in name:
                ax.set_xscale("log")
            ax.set_xticks(curve["x"], [f"{x:g}" for x in curve["x"]])
            ax.set_xticks([], minor=True)
        axes[0].set_ylabel("microseconds per example")
        axes[0].legend()
        fig.suptitle("A training step costs little more than its products, unless it is small")
        return freeze_layout(fig)


def draw(results, folder=PICTURES):
    "Write the pictures that the results allow, PNG and SVG; their paths."
    from biolearn.plotting import save_figure

    makers = {
        "profile": lambda: profile_figure(results["tables"]["profile"]["milliseconds per step"]),
        "scaling": lambda: scaling_figure(results["tables"]["scaling"]["curves"]),
    }
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    return [
        path
        for name, make in makers.items()
        if name in results["tables"]
        for suffix in ("png", "svg")
        for path in [save_figure(make(), folder / f"{name}.{suffix}")]
    ]
