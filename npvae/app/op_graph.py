"""The graph of a recorded pass, and where its boxes and arrows stand on paper: rows from top to bottom, lengths in inches."""

import math
from dataclasses import dataclass, field
from itertools import takewhile

import numpy as np

from npvae.app.recording import Tensor

BOX_WIDTH, BOX_HEIGHT = 2.1, 0.42
CELL_WIDTH, CELL_HEIGHT, CELL_COLUMNS = 1.62, 0.21, 3  # of a parameter beside its box
LANE_WIDTH = 2.9
LINE = 0.2  # height of a line of text beside an arrow
TURN, ENTRY = 0.24, 0.22  # height of the way out to the side, and of the way in from it
MARGIN = 0.15
GENERIC = ("x", "h", "y")  # names that say less than what the next op calls the same array; several outputs get h1, h2, ...


@dataclass
class Node:
    """A box: an op, the data, the loss, or what the model does outside of any pair."""

    title: str
    note: str = ""
    parameters: list = field(default_factory=list)
    rank: int = 0  # row
    lane: int = 0  # column
    x: float = 0.0  # left
    top: float = 0.0
    height: float = BOX_HEIGHT

    @property
    def bottom(self):
        return self.top - self.height


@dataclass
class Edge:
    """An array from one node to another, and the gradient that comes back this way."""

    source: Node
    target: Node
    tensor: Tensor  # of the source
    gradient: np.ndarray | None
    name: str
    lane: int = -1  # in which it goes down; −1 before it has one
    x: float = 0.0  # the left end of that lane
    line: int = 1  # of the text beside it, below the ways out of its source's row

    @property
    def is_long(self):
        """Whether it passes other rows."""
        return self.target.rank > self.source.rank + 1


def graph_of(recorded, model_name):
    """Nodes in the order of the forward pass, and edges."""
    nodes = {id(op): Node(title_of(op), note_of(op), op.parameters) for op in recorded.ops}
    layers = {node.title for node in nodes.values() if node.parameters}
    for op in recorded.ops:
        if not op.parameters and nodes[id(op)].title in layers:  # the VAE's op posterior comes after its layer posterior
            nodes[id(op)].title = ", ".join(out.name for out in op.outputs)
    owned = {name for op in recorded.ops for name in op.parameters}
    own = Node(model_name, "its own arithmetic", [name for name in recorded.parameters if name not in owned])
    data, loss = Node("input"), Node("loss", f"{recorded.loss:.5g}")
    edges, read, without_gradient = [], set(), []
    for i, op in enumerate(recorded.ops):
        node = nodes[id(op)]
        for tensor in op.inputs:
            source, out = producer_of(tensor, recorded.ops[:i])
            if source is not None:
                read.add(id(out))
                says_little = out.name in (*GENERIC, source.name)  # the op's own name where no backward tells another
                name = tensor.name if says_little and tensor.name not in GENERIC else out.name
                gradient = None if out.gradient is None else tensor.gradient  # none goes back to what is not learned
                edges.append(Edge(nodes[id(source)], node, out, gradient, name))
            elif any(np.may_share_memory(tensor.value, given.value) for given in recorded.given):
                if tensor is op.inputs[0] and not any(edge.source is data for edge in edges):
                    edges.append(Edge(data, node, tensor, tensor.gradient, tensor.name))
                else:
                    node.note += f", given {tensor.name}"
            elif tensor.gradient is not None:  # of what came before it, nothing is known
                edges.append(Edge(own, node, tensor, tensor.gradient, tensor.name))
            else:
                without_gradient.append((node, tensor))
    of_own = {id(edge.tensor.value) for edge in edges if edge.source is own}
    edges += [Edge(own, node, tensor, None, tensor.name) for node, tensor in without_gradient if id(tensor.value) in of_own]
    for op in recorded.ops:
        edges += [Edge(nodes[id(op)], loss, out, out.gradient, out.name) for out in op.outputs if id(out) not in read]
    number_outputs([edge for node in nodes.values() for edge in edges if edge.source is node])
    if (own.parameters or not edges) and not any(edge.source is own for edge in edges):
        edges.append(Edge(own, loss, Tensor("loss", np.array(recorded.loss)), np.ones(()), "loss"))
    if any(edge.source is own for edge in edges):
        edges += [Edge(data, own, given, None, given.name) for given in recorded.given]
    used = {id(node) for edge in edges for node in (edge.source, edge.target)}
    return [node for node in (data, own, *nodes.values(), loss) if id(node) in used], edges


def title_of(op):
    """A layer is called what its parameters are called in common; another op by its own name."""
    words = zip(*(name.split(".") for name in op.parameters))
    common = ".".join(first for first, *others in takewhile(lambda same: len(set(same)) == 1, words))
    return common or op.name.replace("_", " ")


def number_outputs(edges):
    """Number the names that say little where several outputs have the same one; edges: those that leave ops, in order."""
    for name in GENERIC:
        outputs = list(dict.fromkeys(id(edge.tensor) for edge in edges if edge.name == name))
        for edge in edges:
            if len(outputs) > 1 and edge.name == name:
                edge.name += str(outputs.index(id(edge.tensor)) + 1)


def note_of(op):
    """The function's name, and its settings in words."""
    return ", ".join(word for word in (f"{op.name}_forward", op.note) if word)


def producer_of(tensor, ops):
    """The latest op whose output an input is, or a view of it, and that output; None and None if there is none."""
    for op in reversed(ops):
        for out in op.outputs:
            if out.value.ndim and np.may_share_memory(tensor.value, out.value):
                return op, out
    return None, None


def arrange(nodes, edges):
    """Give each node its place and each edge its lane; returns width and height of all.

    A node stands one row below the lowest of those that it reads. Of the nodes in one row, the one with the longest way to the
    loss is in lane 0, on the left; lane 1 begins to the right of all parameters.
    """
    to_go = {}
    for node in nodes:
        node.rank = max((edge.source.rank + 1 for edge in edges if edge.target is node), default=0)
        node.height = max(BOX_HEIGHT, grid_of(node.parameters)[1] * CELL_HEIGHT)
    for node in reversed(nodes):
        to_go[id(node)] = max((to_go[id(edge.target)] + 1 for edge in edges if edge.source is node), default=0)
    right = MARGIN + BOX_WIDTH + 0.3 + CELL_WIDTH * max(grid_of(node.parameters)[0] for node in nodes)

    def left_of(lane):
        return MARGIN if lane == 0 else right + (lane - 1) * LANE_WIDTH

    rows = [[node for node in nodes if node.rank == rank] for rank in range(1 + max(node.rank for node in nodes))]
    for row in rows:
        for lane, node in enumerate(sorted(row, key=lambda node: -to_go[id(node)])):
            node.lane, node.x = lane, left_of(lane)
    for edge in sorted(edges, key=lambda edge: is_blocked(edge, edge.source.lane, nodes)):  # first those that go straight down
        edge.lane = lane_of(edge, nodes, edges)
        edge.x = left_of(edge.lane)
    top = 0.0
    for row in rows:
        for node in row:
            node.top = top
        starting = [edge for edge in edges if edge.source in row]
        for i, edge in enumerate(starting):
            edge.line = 1 + sum(other.lane == edge.lane for other in starting[:i])
        ways_out = max(way_out(node, edges) for node in row)
        top -= max(node.height for node in row) + 0.13 + ways_out + LINE * max((edge.line for edge in starting), default=0)
    # ways into the next row from the side are known only now, so that room for them is made afterwards
    for rank in sorted({edge.target.rank for edge in edges if edge.lane != edge.target.lane}):
        for node in nodes:
            node.top -= ENTRY * (node.rank >= rank)
    last_lane = max(edge.lane for edge in edges)
    width = max(right, left_of(last_lane) + LANE_WIDTH if last_lane else MARGIN + LANE_WIDTH)
    return width + MARGIN, max(-node.bottom for node in nodes) + 0.1


def grid_of(parameters):
    """Columns and rows of the cells of a node's parameters: W above b, at most so many columns."""
    n = len(parameters)
    rows = max(min(n, 2), math.ceil(n / CELL_COLUMNS))
    return (math.ceil(n / rows) if n else 0), rows


def is_blocked(edge, lane, nodes):
    """Whether a node stands in a lane, in one of the rows that an edge passes."""
    return any(edge.source.rank < node.rank < edge.target.rank and node.lane == lane for node in nodes)


def lane_of(edge, nodes, edges):
    """The lane in which an edge goes down: its target's, or the first in which the rows that it passes hold no node, and no
    other long edge goes down already."""
    if not edge.is_long:
        return edge.target.lane
    lane = edge.source.lane
    while is_blocked(edge, lane, nodes) or any(meets(edge, other, lane) for other in edges):
        lane += 1
    return lane


def meets(edge, other, lane):
    """Whether another long edge goes down this lane beside an edge, to another node; those to one node share a lane."""
    beside = other.source.rank < edge.target.rank and edge.source.rank < other.target.rank
    return other.is_long and other.lane == lane and beside and other.target is not edge.target


def way_out(node, edges):
    """The height below a node of the sums of its gradients, and of the turn of an arrow to another lane."""
    leaving = [edge for edge in edges if edge.source is node]
    turns = any(edge.target.rank > node.rank + 1 for edge in leaving) or len({id(edge.target) for edge in leaving}) > 1
    return LINE * len(shared_by(node, edges)) + TURN * turns


def shared_by(node, edges):
    """The outputs of a node that several nodes read, and at which gradients arrive, as edges: one of each."""
    leaving = {}
    for edge in edges:
        if edge.source is node and edge.gradient is not None:
            leaving.setdefault(id(edge.tensor), []).append(edge)
    return [readers[0] for readers in leaving.values() if len(readers) > 1]


def way_of(edge, edges, shift):
    """The corners of an edge from its source's lower end to its target's upper end; shift: of one of two lines to the right."""
    x = edge.source.x + 0.2 + shift
    corners = [(x, edge.source.bottom)]
    if edge.lane != edge.source.lane:
        turn = edge.source.bottom - way_out(edge.source, edges) + 0.08 - shift / 2
        corners += [(x, turn), (edge.x + 0.2 + shift, turn)]
        x = edge.x + 0.2 + shift
    if edge.lane != edge.target.lane:
        turn = edge.target.top + ENTRY - shift / 2
        corners += [(x, turn), (edge.target.x + BOX_WIDTH - 0.35 + shift, turn)]
        x = edge.target.x + BOX_WIDTH - 0.35 + shift
    return [*corners, (x, edge.target.top)]
