"""The models as diagrams: inputs below, outputs above, one function a diagram, two tasks.

Colours mean the same in all of them: networks and experts green, gates amber, sums pink, towers blue, losses and
penalties grey, outputs in the colours of the tasks. The letters are the library's: B rows, d inputs, n experts of
h units, K tasks; shapes stand on the right, at the height where an array has them. The type is large enough to be
read where the figure is as wide as a phone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Polygon

from companion.figures.style import TASK_COLOURS, finish, theme

NETWORK, GATE, SUM, TOWER, PLAIN = "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#666666"
INK = "#111111"
SIDE = 4.8
"""Width of a diagram in inches: smaller than the column, so that type is large where the page is narrow."""
NAME, SHAPE = 14, 10.5
"""Points of names and of shapes: in the column of a phone, 342 pixels or 326 in dark, about a pixel each."""
UNITS = 12.4
"""Units across: 10 for the model, the rest for the shapes."""
INPUT, EXPERTS, SUMS, TOWERS, OUTPUTS = 0.5, 2.1, 3.7, 5.2, 6.5
"""Heights of the levels, in units."""
ONE, TWO, MIDDLE = 2.6, 7.4, 5.0
"""Where task 1, task 2 and what they share stand."""

ALTS: Mapping[str, str] = {
    "single_task": "Two separate columns: each task has a network and a tower of its own, and only the input is the same.",
    "shared_bottom": "The input feeds one shared bottom, from which two towers, one per task, make the two outputs.",
    "omoe": "The input feeds three experts and one gate. One weighted sum of the experts feeds both towers.",
    "mmoe": "The input feeds three experts and two gates. Each task's gate makes a weighted sum of all experts for its own tower.",
    "l2_constrained": "Two separate networks, one per task, with a dashed double arrow between their weights: the penalty on their distance.",
    "cross_stitch": "Two networks, one per task. After their layer a two-by-two matrix mixes the two activations; each tower reads its own mix.",
    "tensor_factorization": "A block of weights W, inputs by units by tasks, equals a small core S times three matrices: U1 for inputs, U2 for units, U3 for tasks, each with its rank.",
    "cgc": "Three groups of experts: task 1's, shared, task 2's. Each task's gate sums its own experts and the shared ones, and nothing of the other task's.",
    "ple": "Two levels of experts, one above the other. In the lower level the shared sum reads all three groups; in both, a task's sum reads its own and the shared experts.",
    "attention_gate": "The experts' outputs, as keys, meet one query per task. Their products are the weights of each task's sum.",
    "transformer_experts": "Between the experts and the gates' sums lies one block in which the experts' outputs read each other.",
    "top_k_gate": "A gate gives four logits. The two largest become weights, the other two become 0, so two of four experts are read.",
    "dselect_gate": "Two binary codes per selector choose one of four experts: each code is a smooth step between 0 and 1.",
    "esmm": "Two networks on one embedding: the chance of a click, and that of a conversion given a click. Their product is the chance of both.",
    "encoder": "The user's last actions pass a sequence encoder. Its output and the item are the input of an MMoE with one output per objective.",
    "timeline": "A list in order of time: hard sharing 1993, soft sharing 2015, Cross-Stitch 2016, Tucker 2017, MMoE and ESMM 2018, PLE 2020, DSelect-k 2021, STEM and HoME 2024.",
}
"""By the name of its function, each diagram in words, for those who do not see it."""


@dataclass(frozen=True)
class Part:
    """What arrows start from and end at: a middle, and half of a height."""

    x: float
    y: float
    half: float = 0.42


class Sketch:
    """A figure with boxes, sums, arrows and shapes."""

    def __init__(self, height: float) -> None:
        inches = SIDE * height / UNITS
        self.figure, self.axes = plt.subplots(figsize=(SIDE, inches + 0.3))
        self.axes.set(xlim=(0, UNITS), ylim=(0, height), aspect="equal")
        self.axes.axis("off")

    def box(self, x: float, y: float, text: str, colour: str, width: float = 1.3) -> Part:
        """A named part of the model."""
        corner = (x - width / 2, y - 0.37)
        self.axes.add_patch(
            FancyBboxPatch(corner, width, 0.74, "round,pad=0.05", fc=colour + "33", ec=colour)
        )
        self.text(x, y, text)
        return Part(x, y)

    def sum(self, x: float, y: float) -> Part:
        """A weighted sum."""
        self.axes.add_patch(Circle((x, y), 0.42, fc=SUM + "33", ec=SUM))
        self.text(x, y, r"$\Sigma$")
        return Part(x, y)

    def arrow(self, start: Part, end: Part, *, gate: bool = False) -> None:
        """From the top of a part to the bottom of another; what a gate reads and says is dashed."""
        ends = (start.x, start.y + start.half), (end.x, end.y - end.half)
        self.axes.add_patch(
            FancyArrowPatch(
                *ends, arrowstyle="-|>", mutation_scale=9, lw=1, shrinkA=1, shrinkB=1,
                ls="--" if gate else "-", color="#A06E00" if gate else "#444444",
            )
        )  # fmt: skip

    def text(self, x: float, y: float, text: str, *, size: float = NAME, colour: str = INK) -> None:
        """Words in the middle of a place."""
        self.axes.text(x, y, text, ha="center", va="center", fontsize=size, color=colour)

    def shapes(self, shapes: Mapping[float, str]) -> None:
        """By its height, the shape of what leaves the level there."""
        for y, text in shapes.items():
            self.axes.text(UNITS, y, text, ha="right", va="center", fontsize=SHAPE, color="#555555")

    def source(self, text: str = "input $x$", width: float = 2.4) -> Part:
        """The input."""
        return self.box(MIDDLE, INPUT, text, PLAIN, width)

    def gate(self, source: Part, x: float, y: float, name: str, mixed: Part) -> None:
        """A gate that reads the input and weighs a sum."""
        box = self.box(x, y, name, GATE, 1.0)
        self.arrow(source, box, gate=True)
        self.arrow(box, mixed, gate=True)

    def towers(self, below: Sequence[Part], y: float = TOWERS) -> None:
        """A tower and an output for each task, on what the task reads."""
        for k, (x, part, colour) in enumerate(zip((ONE, TWO), below, TASK_COLOURS, strict=True), start=1):
            tower = self.box(x, y, f"tower $h_{k}$", TOWER, 2.4)
            self.arrow(part, tower)
            out = Part(x, y + 1.3, 0.3)
            self.arrow(tower, out)
            self.text(out.x, out.y, f"$y_{k}$", colour=colour)


def _by(*sides: str) -> str:
    return " \N{MULTIPLICATION SIGN} ".join(sides)


@contextmanager
def sketch(finding: str, height: float = OUTPUTS + 0.4) -> Iterator[Sketch]:
    """An empty diagram, with its title once it is drawn; `height` in units."""
    with theme(), plt.rc_context({"axes.grid": False}):
        one = Sketch(height)
        yield one
        finish(one.figure, finding)


def single_task() -> Figure:
    """A network per task: nothing is shared."""
    with sketch("Single-Task: a network per task", height=5.3) as s:
        source = s.source()
        networks = [s.box(x, 2.1, f"network $f_{k}$", NETWORK, 3.0) for k, x in ((1, ONE), (2, TWO))]
        for network in networks:
            s.arrow(source, network)
        s.towers(networks, 3.7)
        s.shapes({0.5: "x (B, d)", 2.1: "(B, K, h)", 5.0: "y (B, K)"})
    return s.figure


def shared_bottom() -> Figure:
    """Equation 1: one bottom, a tower per task."""
    with sketch("Shared-Bottom: one network for all tasks", height=5.3) as s:
        source = s.source()
        bottom = s.box(MIDDLE, 2.1, "shared bottom $f$", NETWORK, 5.6)
        s.arrow(source, bottom)
        s.towers([bottom, bottom], 3.7)
        s.shapes({0.5: "x (B, d)", 2.1: "f (B, h)", 5.0: "y (B, K)"})
    return s.figure


def _experts(s: Sketch, source: Part, xs: Sequence[float] = (3.4, 5.0, 6.6)) -> list[Part]:
    experts = [s.box(x, EXPERTS, f"$f_{i}$", NETWORK, 1.1) for i, x in enumerate(xs, start=1)]
    for expert in experts:
        s.arrow(source, expert)
    return experts


def omoe() -> Figure:
    """Equation 5 as a bottom: experts, one gate, one sum for all tasks."""
    with sketch("OMoE: experts, mixed once for all tasks") as s:
        source = s.source()
        experts, mixed = _experts(s, source), s.sum(MIDDLE, SUMS)
        s.gate(source, 1.0, EXPERTS, "$g$", mixed)
        for expert in experts:
            s.arrow(expert, mixed)
        s.towers([mixed, mixed])
        s.shapes({0.5: "x (B, d)", 2.4: "f (B, n, h)", 1.8: "g (B, n)", 3.7: "(B, h)", 6.5: "y (B, K)"})
    return s.figure


def mmoe() -> Figure:
    """Equations 6 to 8: experts, a gate and a sum per task."""
    with sketch("MMoE: the same experts, a gate per task") as s:
        source = s.source()
        experts, mixed = _experts(s, source), [s.sum(ONE, SUMS), s.sum(TWO, SUMS)]
        for k, x in enumerate((1.0, 9.0)):
            s.gate(source, x, EXPERTS, f"$g^{k + 1}$", mixed[k])
            for expert in experts:
                s.arrow(expert, mixed[k])
        s.towers(mixed)
        s.shapes({0.5: "x (B, d)", 2.5: "f (B, n, h)", 1.7: "g (B, K, n)", 3.7: "(B, K, h)", 6.5: "y (B, K)"})
    return s.figure


def l2_constrained() -> Figure:
    """A network per task, their weights drawn together by a penalty."""
    with sketch("L2-Constrained: networks held near each other", height=5.3) as s:
        source = s.source()
        networks = [s.box(x, 2.1, rf"$f(x;\,\theta_{k})$", NETWORK, 2.6) for k, x in ((1, 1.8), (2, 8.2))]
        for network in networks:
            s.arrow(source, network)
        s.axes.annotate(
            "", (6.85, 2.1), (3.15, 2.1), arrowprops={"arrowstyle": "<|-|>", "color": PLAIN, "ls": "--"}
        )
        s.text(MIDDLE, 2.65, r"$\alpha\,\|\theta_1 - \theta_2\|^2$")
        s.towers(networks, 3.7)
        s.shapes({0.5: "x (B, d)", 2.1: "(B, K, h)", 5.0: "y (B, K)"})
    return s.figure


def cross_stitch() -> Figure:
    """A network per task; a matrix of K x K numbers mixes their activations."""
    with sketch("Cross-Stitch: networks that exchange activations") as s:
        source = s.source()
        layers = [s.box(x, EXPERTS, f"layer $f_{k}$", NETWORK, 2.4) for k, x in ((1, ONE), (2, TWO))]
        mixed = [s.sum(ONE, SUMS), s.sum(TWO, SUMS)]
        for layer in layers:
            s.arrow(source, layer)
            for place in mixed:
                s.arrow(layer, place)
        for x, y, entry in ((1.9, 2.9, "11"), (4.2, 3.5, "12"), (5.8, 3.5, "21"), (8.1, 2.9, "22")):
            s.text(x, y, rf"$\alpha_{{{entry}}}$")
        s.towers(mixed)
        s.shapes(
            {0.5: "x (B, d)", 2.1: "(B, K, h)", 2.9: r"$\alpha$ (K, K)", 3.7: "(B, K, h)", 6.5: "y (B, K)"}
        )
    return s.figure


def _cuboid(s: Sketch, x: float, y: float, width: float, height: float, depth: float, colour: str) -> None:
    """A block whose lower left corner in front is at (x, y)."""
    a, b, step = x + width, y + height, depth * 0.6
    front = [(x, y), (a, y), (a, b), (x, b)]
    above = [(x, b), (a, b), (a + step, b + step), (x + step, b + step)]
    beside = [(a, y), (a + step, y + step), (a + step, b + step), (a, b)]
    for corners, shade in ((front, "33"), (above, "55"), (beside, "77")):
        s.axes.add_patch(Polygon(corners, fc=colour + shade, ec=colour))


def tensor_factorization() -> Figure:
    """Tucker's form: the weights of all tasks as a core and three factors, with ranks and shapes."""
    with sketch(r"Tucker: all tasks' weights from one small core", height=6.2) as s:
        _cuboid(s, 0.2, 1.9, 2.2, 2.2, 1.2, NETWORK)
        s.text(1.3, 3.0, "$W$")
        s.text(1.3, 1.4, _by("m", "n", "k"), size=SHAPE)
        s.text(3.9, 3.0, "=")
        _cuboid(s, 6.6, 2.3, 1.2, 1.2, 0.8, SUM)
        s.text(7.2, 2.9, "$S$")
        s.text(7.3, 1.8, _by("r1", "r2", "r3"), size=SHAPE)
        _cuboid(s, 4.7, 1.9, 1.2, 2.2, 0, GATE)
        s.text(5.3, 3.0, "$U_1$")
        s.text(5.2, 1.4, _by("m", "r1"), size=SHAPE)
        _cuboid(s, 8.8, 2.3, 2.2, 1.2, 0, GATE)
        s.text(9.9, 2.9, "$U_2$")
        s.text(9.9, 1.8, _by("n", "r2"), size=SHAPE)
        corners = [(7.1, 4.2), (8.3, 4.2), (9.2, 5.1), (8.0, 5.1)]
        s.axes.add_patch(Polygon(corners, fc=GATE + "33", ec=GATE))
        s.text(8.15, 4.65, "$U_3$")
        s.text(10.4, 4.65, _by("k", "r3"), size=SHAPE)
        s.text(6.2, 0.5, "task $t$ uses the slice $W$[:, :, t]: " + _by("m", "n"))
    return s.figure


def _groups(s: Sketch, below: Sequence[Part], y: float) -> list[Part]:
    """A task's own experts, the shared ones, the other task's own."""
    names = ("task 1's", "shared", "task 2's")
    groups = [s.box(x, y, name, NETWORK, 2.3) for x, name in zip((2.0, 5.0, 8.0), names, strict=True)]
    for part, group in zip(below, groups, strict=True):
        s.arrow(part, group)
    return groups


def cgc() -> Figure:
    """Shared experts beside experts of each task's own; a gate reads its own and the shared."""
    with sketch("CGC: shared experts, and a task's own") as s:
        source = s.source()
        groups = _groups(s, [source] * 3, EXPERTS)
        mixed = [s.sum(ONE, SUMS), s.sum(TWO, SUMS)]
        for k, x in enumerate((0.7, 9.3)):
            box = s.box(x, SUMS, f"$g^{k + 1}$", GATE, 1.0)
            s.axes.annotate(
                "",
                (mixed[k].x + (-0.45, 0.45)[k], SUMS),
                (box.x + (0.55, -0.55)[k], SUMS),
                arrowprops={"arrowstyle": "-|>", "color": "#A06E00", "ls": "--"},
            )
            s.arrow(groups[2 * k], mixed[k])
            s.arrow(groups[1], mixed[k])
        s.towers(mixed)
        s.shapes({0.5: "x (B, d)", 2.4: "s shared,", 1.8: "t own", 4.3: "(B, K, h)", 6.5: "y (B, K)"})
    return s.figure


def ple() -> Figure:
    """Two levels of CGC; the lower one also mixes all experts for the shared experts above."""
    with sketch("PLE: levels of shared and own experts", height=9.9) as s:
        source = s.source()
        lower = _groups(s, [source] * 3, 2.1)
        joined = [s.sum(x, 3.7) for x in (2.0, 5.0, 8.0)]
        upper = _groups(s, joined, 5.2)
        mixed = [s.sum(ONE, 6.8), s.sum(TWO, 6.8)]
        for k in (0, 1):
            for group, sums in ((lower, (joined[0], joined[2])), (upper, mixed)):
                s.arrow(group[2 * k], sums[k])
                s.arrow(group[1], sums[k])
            s.arrow(lower[2 * k], joined[1])
        s.arrow(lower[1], joined[1])
        s.towers(mixed, 8.2)
        s.shapes(
            {
                0.5: "x (B, d)",
                2.1: "level 1",
                3.7: "gated sums",
                5.2: "level 2",
                6.8: "gated sums",
                9.5: "y (B, K)",
            }
        )
    return s.figure


def attention_gate() -> Figure:
    """A task's weights come from its query and the experts' outputs as keys."""
    with sketch("Attention gate: a query asks what experts say", height=7.4) as s:
        source = s.source()
        experts = _experts(s, source, (2.0, 5.0, 8.0))
        keys = s.box(MIDDLE, 3.6, r"keys $W f_i(x)$", GATE, 8.0)
        for expert in experts:
            s.arrow(expert, Part(expert.x, keys.y), gate=True)
        for k, x in ((1, ONE), (2, TWO)):
            query = s.box(x, 5.2, rf"softmax$_i(q_{k}\cdot$key$_i)$", GATE, 4.6)
            s.arrow(Part(x, keys.y), query, gate=True)
            out = Part(x, 6.8, 0.4)
            s.arrow(query, out, gate=True)
            s.text(x, 6.9, f"$g^{k}$", colour=TASK_COLOURS[k - 1])
        s.shapes({0.5: "x (B, d)", 2.1: "f (B, n, h)", 3.6: "(B, n, a)", 6.8: "g (B, K, n)"})
    return s.figure


def transformer_experts() -> Figure:
    """The experts' outputs read each other before the gates mix them."""
    with sketch("Transformer over experts, then MMoE's gates", height=8.2) as s:
        source = s.source()
        experts = _experts(s, source, (3.0, 5.0, 7.0))
        block = s.box(MIDDLE, 3.6, "self-attention", SUM, 5.6)
        for expert in experts:
            s.arrow(expert, Part(expert.x, block.y))
        mixed = [s.sum(ONE, 5.1), s.sum(TWO, 5.1)]
        for k, x in enumerate((0.8, 9.2)):
            s.gate(source, x, EXPERTS, f"$g^{k + 1}$", mixed[k])
            for expert in experts:
                s.arrow(Part(expert.x, block.y), mixed[k])
        s.towers(mixed, 6.5)
        s.shapes(
            {
                0.5: "x (B, d)",
                2.6: "f (B, n, h)",
                1.7: "g (B, K, n)",
                3.6: "(B, n, h)",
                5.1: "(B, K, h)",
                7.8: "y (B, K)",
            }
        )
    return s.figure


def _choice(s: Sketch, top: Sequence[str], names: Sequence[str], kept: Sequence[int]) -> None:
    """Weights of four experts above what they are made of, those that are kept in full colour."""
    for i, (above, below) in enumerate(zip(top, names, strict=True)):
        x, colour = 1.4 + 2.4 * i, GATE if i in kept else "#999999"
        under = s.box(x, 2.1, below, colour, 1.8)
        over = s.box(x, 3.7, above, colour, 1.8)
        expert = s.box(x, 5.2, f"$f_{i + 1}$", NETWORK if i in kept else "#999999", 1.8)
        if i in kept:
            s.arrow(under, over, gate=True)
            s.arrow(over, expert, gate=True)


def top_k_gate() -> Figure:
    """The k largest logits become weights, all others 0; here k = 2 of n = 4, logits 2, 1, 0, -1."""
    with sketch("Top-2 gate: the two largest logits count", height=5.9) as s:
        source = s.source(r"gate $W_{gk}\,x$", 3.2)
        for i in range(4):
            s.arrow(source, Part(1.4 + 2.4 * i, 2.1), gate=True)
        _choice(s, ["0.73", "0.27", "0", "0"], ["2", "1", "0", "$-1$"], kept=(0, 1))
        s.shapes({2.1: "logits", 3.7: "weights", 5.2: "experts"})
    return s.figure


def dselect_gate() -> Figure:
    """One selector of DSelect-k: two smooth steps, whose products are the weights of four experts."""
    with sketch("DSelect-k: binary codes that learn to choose", height=5.9) as s:
        codes = [s.box(x, INPUT, rf"code $z_{j}$", GATE, 2.4) for j, x in ((1, ONE), (2, TWO))]
        for i in range(4):
            for code in codes:
                s.arrow(code, Part(1.4 + 2.4 * i, 2.1), gate=True)
        products = ["00", "01", "10", "11"]
        _choice(s, ["$r_1$", "$r_2$", "$r_3$", "$r_4$"], products, kept=range(4))
        s.shapes({0.5: "log2 n", 2.1: "products", 3.7: "weights", 5.2: "experts"})
    return s.figure


def esmm() -> Figure:
    """The chance of a click, that of a conversion given a click, and their product, over all impressions."""
    with sketch("ESMM: click, conversion given click, product", height=6.9) as s:
        source = s.source("shared embedding", 5.4)
        names = ("click", "conversion | click")
        towers = [
            s.box(x, 2.1, name, TOWER, w) for x, name, w in zip((2.0, 7.2), names, (2.4, 5.0), strict=True)
        ]
        product = s.box(7.2, 4.0, _by("", "").strip(), SUM, 1.0)
        for tower, label, colour in zip(towers, ("P(click)", ""), TASK_COLOURS, strict=True):
            s.arrow(source, tower)
            s.arrow(tower, product)
            s.text(tower.x, 4.0, label, colour=colour)
        s.arrow(towers[0], Part(2.0, 4.0, 0.4))
        s.arrow(product, Part(7.2, 5.5, 0.4))
        s.text(7.2, 5.5, "P(click and conversion)", colour=TASK_COLOURS[1])
        s.text(MIDDLE, 6.4, "both outputs have a label on every impression", size=SHAPE)
        s.shapes({0.5: "(B, d)"})
    return s.figure


def encoder() -> Figure:
    """Where MMoE stands in a ranker that reads a sequence of actions."""
    with sketch("Today's ranker: MMoE on a sequence encoder", height=6.2) as s:
        actions = [
            s.box(x, 0.5, text, PLAIN, 1.5) for x, text in ((1.0, "play"), (3.0, "like"), (5.0, "skip"))
        ]
        item = s.box(8.4, 0.5, "video?", PLAIN, 2.2)
        reader = s.box(3.0, 2.1, "sequence encoder", SUM, 5.6)
        for action in actions:
            s.arrow(action, Part(action.x, reader.y))
        mixture = s.box(MIDDLE, 3.9, "MMoE: experts and gates", NETWORK, 8.6)
        s.arrow(reader, Part(3.0, mixture.y))
        s.arrow(item, Part(8.4, mixture.y))
        for x, name in zip((1.3, 5.0, 8.7), ("click", "watch", "like"), strict=True):
            tower = s.box(x, 5.6, name, TOWER, 2.0)
            s.arrow(Part(x, mixture.y), tower)
        s.shapes({0.5: "actions", 3.0: "x (B, d)", 5.6: "K towers"})
    return s.figure


WAYS = (
    ("1993", "hard sharing", "one bottom", NETWORK),
    ("2015", "soft sharing", "weights kept near", PLAIN),
    ("2016", "Cross-Stitch", "activations mixed", SUM),
    ("2017", "Tucker", "weights factorised", SUM),
    ("2018", "MMoE", "experts, a gate per task", GATE),
    ("2018", "ESMM", _by("click", "conversion"), TOWER),
    ("2020", "CGC, PLE", "experts of a task's own", GATE),
    ("2021", "DSelect-k", "gates that choose", GATE),
    ("2024", "STEM", "embeddings per task", PLAIN),
    ("2024", "HoME", "experts in groups", GATE),
)
"""Year, name, what is shared in few words, colour of the part that is new."""


def timeline() -> Figure:
    """Ways to share, in order of time."""
    with sketch("Ways to share, in order of time", height=0.75 * len(WAYS) + 0.3) as s:
        s.axes.plot([2.0, 2.0], [0.4, 0.75 * len(WAYS) - 0.3], color="#bbbbbb", lw=2, zorder=0)
        for place, (year, name, what, colour) in enumerate(reversed(WAYS)):
            y = 0.45 + 0.75 * place
            s.axes.add_patch(Circle((2.0, y), 0.2, fc=colour, ec="white"))
            for x, words, weight in ((0.2, year, "normal"), (2.6, name, "bold"), (6.2, what, "normal")):
                s.axes.text(x, y, words, va="center", fontsize=11.5, weight=weight, color=INK)
    return s.figure
