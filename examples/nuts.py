"""A small No-U-Turn sampler in pure numpy.

Trajectories are sampled multinomially and end at a generalised U-turn (Betancourt 2017,
https://arxiv.org/abs/1701.02434). During warmup the step size follows dual averaging (Hoffman &
Gelman 2014) and a diagonal mass matrix is estimated in expanding windows, as in Stan.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(slots=True)
class Point:
    """One point of phase space; its momentum is in units that make the mass one."""

    position: np.ndarray
    momentum: np.ndarray
    log_density: float
    gradient: np.ndarray

    @property
    def energy(self) -> float:
        """Kinetic plus potential energy, infinite wherever the density fails to be a number."""
        energy = 0.5 * float(self.momentum.dot(self.momentum)) - self.log_density
        return energy if math.isfinite(energy) else math.inf


@dataclass(slots=True)
class Tree:
    """A stretch of trajectory from `start` to `end`, and the point drawn from it."""

    start: Point
    end: Point
    momentum_sum: np.ndarray
    log_weight: float
    proposal: Point


@dataclass(slots=True)
class Trajectory:
    """One trajectory, doubled at a random end until it turns, diverges or is deep enough."""

    leapfrog: Callable[[Point, float], Point]
    rng: np.random.Generator
    initial_energy: float
    max_energy_error: float = 1000.0
    tree_depth: int = 0
    n_steps: int = 0
    acceptance_sum: float = 0.0
    diverging: bool = False
    turning: bool = False

    def run(self, initial: Point, step: float, max_tree_depth: int) -> Point:
        """Build the whole trajectory and return the point drawn from it."""
        tree = Tree(initial, initial, initial.momentum, 0.0, initial)
        while self.tree_depth < max_tree_depth and not (self.turning or self.diverging):
            if self.rng.random() < 0.5:
                step = -step
                tree.start, tree.end = tree.end, tree.start
            extension = self._build(tree.end, step, self.tree_depth)
            self.tree_depth += 1
            # A new half that turns or diverges within is dropped whole: starting from its points
            # the trajectory would have stopped earlier, so drawing one would not be reversible.
            if extension is not None:
                tree = self._join(tree, extension, favour_second=True)
        return tree.proposal

    def _build(self, origin: Point, step: float, depth: int) -> Tree | None:
        """Take 2**depth steps from `origin`; None if they turn or diverge on the way."""
        if depth == 0:
            point = self.leapfrog(origin, step)
            log_weight = self.initial_energy - point.energy
            self.n_steps += 1
            self.acceptance_sum += math.exp(min(0.0, log_weight))
            self.diverging = log_weight < -self.max_energy_error
            leaf = Tree(point, point, point.momentum, log_weight, point)
            return None if self.diverging else leaf
        first = self._build(origin, step, depth - 1)
        second = first and self._build(first.end, step, depth - 1)
        if first is None or second is None:
            return None
        joined = self._join(first, second, favour_second=False)
        return None if self.turning else joined

    def _join(self, first: Tree, second: Tree, favour_second: bool) -> Tree:
        """Put two neighbouring stretches together, noting whether the whole turns."""
        log_weight = float(np.logaddexp(first.log_weight, second.log_weight))
        # Favouring the newest half beyond its share of the weight makes for longer jumps.
        log_probability = second.log_weight - (first.log_weight if favour_second else log_weight)
        accepted = self.rng.random() < math.exp(min(0.0, log_probability))
        proposal = second.proposal if accepted else first.proposal
        momentum_sum = first.momentum_sum + second.momentum_sum
        self.turning = _turns(first.start, second.end, momentum_sum)
        if not self.turning and first.start is not first.end:
            # Looking across the seam as well catches a full turn whose two halves each end just
            # short of turning, which can otherwise go round and round on a near-normal target.
            seam_sum = first.momentum_sum + second.start.momentum
            self.turning = _turns(first.start, second.start, seam_sum)
            seam_sum = first.end.momentum + second.momentum_sum
            self.turning |= _turns(first.end, second.end, seam_sum)
        return Tree(first.start, second.end, momentum_sum, log_weight, proposal)


def _turns(start: Point, end: Point, momentum_sum: np.ndarray) -> bool:
    """Tell whether either end no longer moves along the summed momentum."""
    return bool(start.momentum.dot(momentum_sum) <= 0 or end.momentum.dot(momentum_sum) <= 0)


@dataclass(slots=True)
class Adaptation:
    """What the warmup has learned since the mass matrix last changed."""

    log_step_centre: float
    log_step_average: float
    position_mean: np.ndarray
    position_squares: np.ndarray
    error_average: float = 0.0
    n_errors: int = 0
    n_positions: int = 0

    def next_step_size(self, error: float) -> float:
        """Take in how far acceptance fell short and return the step size to try next.

        10, 0.05 and 0.75 are Hoffman & Gelman's t0, gamma and kappa.
        """
        self.n_errors += 1
        self.error_average += (error - self.error_average) / (self.n_errors + 10)
        log_step = self.log_step_centre - self.error_average * math.sqrt(self.n_errors) / 0.05
        self.log_step_average += self.n_errors**-0.75 * (log_step - self.log_step_average)
        return math.exp(log_step)

    def add(self, position: np.ndarray) -> None:
        """Take in one position (Welford's recurrence)."""
        self.n_positions += 1
        deviation = position - self.position_mean
        self.position_mean += deviation / self.n_positions
        self.position_squares += deviation * (position - self.position_mean)

    def variance(self) -> np.ndarray:
        """Return the variance, drawn towards 0.001 while the positions are few, as in Stan."""
        share = self.n_positions / (self.n_positions + 5)
        return share * self.position_squares / max(self.n_positions - 1, 1) + (1 - share) * 1e-3


def adaptation_windows(tune: int) -> list[int]:
    """Return the iterations at which the windows of the mass matrix begin and end, as in Stan."""
    if tune < 20:
        return [0]
    start, stop = (75, tune - 50) if tune >= 150 else (15 * tune // 100, tune - tune // 10)
    edges, size = [start], 25
    while edges[-1] < stop:
        # A window that the next, twice as long, could not follow takes all that is left.
        next_fits = edges[-1] + 3 * size <= stop
        edges.append(edges[-1] + size if next_fits else stop)
        size *= 2
    return edges


class NUTS:
    """The No-U-Turn sampler of one chain, adapting itself during its first `tune` steps."""

    _STATE = ("iteration", "position", "log_density", "gradient", "scale", "step_size")

    def __init__(
        self,
        log_density_and_gradient: Callable[[np.ndarray], tuple[float, np.ndarray]],
        position: np.ndarray,
        rng: np.random.Generator,
        tune: int,
        target_accept: float = 0.8,
        max_tree_depth: int = 10,
    ) -> None:
        self.log_density_and_gradient = log_density_and_gradient
        self.rng = rng
        self.tune = tune
        self.target_accept = target_accept
        self.max_tree_depth = max_tree_depth
        self.windows = adaptation_windows(tune)
        self.iteration = 0
        self.position = np.array(position, dtype=float)
        log_density, self.gradient = log_density_and_gradient(self.position)
        self.log_density = float(log_density)
        if not (math.isfinite(self.log_density) and np.isfinite(self.gradient).all()):
            raise ValueError("the log density or its gradient is not finite at the first position")
        # Measuring each parameter in its own scale amounts to a diagonal mass matrix of scale**-2.
        self.scale = np.ones_like(self.position)
        self.step_size = 1.0
        self._restart_adaptation()

    # Far-off trial steps may overflow in the target; they only end as divergences.
    @np.errstate(all="ignore")
    def step(self) -> tuple[np.ndarray, dict[str, Any]]:
        """Make one draw and return its position and statistics."""
        initial = self._kick()
        trajectory = Trajectory(self._leapfrog, self.rng, initial.energy)
        point = trajectory.run(initial, self.step_size, self.max_tree_depth)
        self.position, self.log_density = point.position, point.log_density
        self.gradient = point.gradient
        acceptance_rate = trajectory.acceptance_sum / trajectory.n_steps
        stats = {
            "lp": point.log_density,
            "energy": point.energy,
            "acceptance_rate": acceptance_rate,
            "step_size": self.step_size,
            "tree_depth": trajectory.tree_depth,
            "n_steps": trajectory.n_steps,
            "diverging": trajectory.diverging,
            "reached_max_treedepth": not (trajectory.turning or trajectory.diverging),
        }
        self.iteration += 1
        if self.iteration <= self.tune:
            self._adapt(acceptance_rate)
        return self.position.copy(), stats

    def state(self) -> dict[str, Any]:
        """Return a copy of all that the coming draws depend on."""
        changing = {"adaptation": asdict(self.adaptation), "rng": self.rng.bit_generator.state}
        return copy.deepcopy({name: getattr(self, name) for name in self._STATE} | changing)

    def restore(self, state: dict[str, Any]) -> None:
        """Continue exactly from the `state` of a sampler constructed with the same arguments."""
        state = copy.deepcopy(state)
        for name in self._STATE:
            setattr(self, name, state[name])
        self.adaptation = Adaptation(**state["adaptation"])
        self.rng.bit_generator.state = state["rng"]

    def _adapt(self, acceptance_rate: float) -> None:
        """Learn from the draw just made."""
        self.step_size = self.adaptation.next_step_size(self.target_accept - acceptance_rate)
        if self.windows[0] < self.iteration <= self.windows[-1]:
            self.adaptation.add(self.position)
        if self.iteration in self.windows[1:]:
            self.scale = np.sqrt(self.adaptation.variance())
            self._restart_adaptation()
        if self.iteration == self.tune:
            self.step_size = math.exp(self.adaptation.log_step_average)

    @np.errstate(all="ignore")
    def _restart_adaptation(self) -> None:
        """Begin a window, from a step size whose first acceptance is about the target."""
        factor = 0.0
        # The limit is for targets, such as flat ones, where no step is ever too long.
        for _ in range(100):
            start = self._kick()
            energy_error = self._leapfrog(start, self.step_size).energy - start.energy
            wanted = 2.0 if energy_error < -math.log(self.target_accept) else 0.5
            if factor not in (0.0, wanted):
                break
            factor = wanted
            self.step_size *= factor
        # The search leans to long steps, ten times the present one, as they are cheap to try.
        zeros = np.zeros_like(self.position)
        log_step = math.log(self.step_size)
        self.adaptation = Adaptation(log_step + math.log(10), log_step, zeros, zeros.copy())

    def _kick(self) -> Point:
        """Return the current position with a fresh random momentum."""
        momentum = self.rng.standard_normal(self.position.size)
        return Point(self.position, momentum, self.log_density, self.gradient)

    def _leapfrog(self, point: Point, step: float) -> Point:
        """Move a point by one leapfrog step, backwards in time if `step` is negative."""
        scaled_step = step * self.scale
        momentum = point.momentum + 0.5 * scaled_step * point.gradient
        position = point.position + scaled_step * momentum
        log_density, gradient = self.log_density_and_gradient(position)
        momentum = momentum + 0.5 * scaled_step * gradient
        return Point(position, momentum, float(log_density), gradient)
