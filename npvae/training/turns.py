"""Training of players that take turns: each has a part of theta and an optimiser of its own, and a step moves one of them.

    npvae.fit(model, x)                                                                      # Adam for each player
    npvae.fit(model, x, optimizer={"critic": npvae.RMSProp(5e-5), "generator": npvae.Adam(1e-4)})

A model that has `players` says which there are; of one optimiser, or one for each, `fit` makes an InTurn. It hands the model
whose step it is as the setting `player`, and the optimiser moves the same player.

To training InTurn is an optimiser like any other, which uses what every optimiser may offer beside `step`: `initial_state`,
`check_state`, `on_backend`, `select` (what a step does not move has no gradient, before the gradient is shortened) and `skip`
(of a step that is left out, so that turns and steps keep pace).
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from npvae.core import checks
from npvae.training import optim
from npvae.training.schedules import Turns


@dataclass(frozen=True)
class InTurn:
    """One optimiser for each player, of which a step calls one.

    turns        name of the player whose step it is, a callable of the step (0 for the first)
    optimizers   name -> optimiser, one of npvae's or one's own
    parts        name -> slice of theta
    limits       name -> largest size that an entry of the part may have after the player's step: weight clipping (Arjovsky,
                 Chintala & Bottou 2017, algorithm 1)

    Its state holds the steps done in all, "t", and that of each player's optimiser under names such as "critic.m", whose t
    counts the player's own steps. Learning rates that are schedules are functions of all steps, as `fit` counts them.
    ValueError for what cannot be.
    """

    turns: Callable
    optimizers: dict
    parts: dict
    limits: dict = field(default_factory=dict)

    def __post_init__(self):
        if not callable(self.turns):
            raise ValueError(f"turns must be a callable of the step, such as npvae.schedules.Turns; got {self.turns!r}")
        if set(self.optimizers) != set(self.parts):
            raise ValueError(f"optimizers are for {', '.join(self.optimizers)}, and parts for {', '.join(self.parts)}")
        for name, limit in self.limits.items():
            checks.choice("limits", name, list(self.parts))
            checks.number(f"limit of {name}", limit, 0, exclusive=True)

    def step(self, theta, grad, state):
        """The step of the player whose turn it is: theta, grad (P,); theta and state are changed in place."""
        name = self.turn(state)
        part = theta[self.parts[name]]
        own = {**own_state(name, state), "step": state["t"]}  # what schedules are functions of
        self.optimizers[name].step(part, grad[self.parts[name]], own)
        if name in self.limits:
            np.clip(part, -self.limits[name], self.limits[name], out=part)
        state |= {f"{name}.{key}": value for key, value in own.items() if key != "step"}
        state["t"] += 1

    def turn(self, state):
        """The name of the player whose step is next."""
        name = self.turns(state["t"])
        checks.choice("turns", name, list(self.parts))
        return name

    def select(self, grad, state):
        """Set to zero, in place, what the next step does not use of a gradient in shares (shards, P)."""
        name = self.turn(state)
        for other, part in self.parts.items():
            if other != name:
                grad[..., part] = 0

    def skip(self, state):
        """Count a step that is left out."""
        state["t"] += 1

    def on_backend(self, model):
        """The same with each of npvae's optimisers on the model's back end."""
        return replace(self, optimizers={name: optim.on_backend(one, model) for name, one in self.optimizers.items()})

    def initial_state(self, theta):
        """The state before the first step."""
        state = {"t": 0}
        for name, optimizer in self.optimizers.items():
            own = optim.initial_state(optimizer, theta[self.parts[name]])
            state |= {f"{name}.{key}": value for key, value in own.items()}
        return state

    def check_state(self, theta, state):
        """ValueError unless `state` is one of these optimisers for parameters like theta."""
        for name, optimizer in self.optimizers.items():
            own = own_state(name, state)
            if not own:
                raise ValueError(f"the state holds nothing of the optimizer of {name}; got {', '.join(sorted(state))}")
            optim.check_state(optimizer, theta[self.parts[name]], own)


def own_state(name, state):
    """What the optimiser of a player has in the state."""
    return {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}


def in_turn(players, optimizer):
    """The InTurn of a model's players, a dict of name -> `npvae.models.protocol.Player`; optimizer: one, which each player has
    for itself, or a dict of name -> optimiser."""
    optimizers = optimizer if isinstance(optimizer, dict) else dict.fromkeys(players, optimizer)
    turns = Turns({name: player.n_steps for name, player in players.items()})
    limits = {name: player.limit for name, player in players.items() if player.limit is not None}
    return InTurn(turns, optimizers, {name: player.part for name, player in players.items()}, limits)


def arranged(model, optimizer, settings):
    """The optimiser and the settings that a model is trained with: of a model with players an InTurn, and the setting `player`,
    whose step it is; of others those given. ValueError where somebody else sets the player."""
    if hasattr(model, "players") and not hasattr(optimizer, "turns"):
        optimizer = in_turn(model.players(**settings), optimizer)
    if not hasattr(optimizer, "turns"):
        return optimizer, settings
    if "player" in settings:
        raise ValueError("player is what the optimizer's turns say: leave out the setting")
    return optimizer, {**settings, "player": optimizer.turns}
