"""One token per group of features that belong together, and a global token of all groups.

Paper: Jiang et al., "TokenMixer-Large: Scaling Up Large Ranking Models", 2026, arXiv:2602.06563.
Layer: x_i = MLP_i(concat of group i); x_G = MLP_g(concat of all groups), section "tokens".
Differs from the paper: linear projections unless `hidden_dim`; a second global token by option.
Cost: weights + offsets parameters; weights multiply-adds per row.
Shapes: B rows, T tokens of width D; weights and offsets are sums over the groups' projections.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field, PositiveInt
from torch import Generator, Tensor, nn

from rankloom.config import Config
from rankloom.errors import ConfigError, did_you_mean, join_problems
from rankloom.layers.linear import linear
from rankloom.layers.protocols import Inputs, Layout, Takes, TokenLayout, Tokens
from rankloom.schema import Rate
from rankloom.tokenization.by_rate import TOKEN_RATES, assemble, token_rate

PATH = "model.tokenization.groups"
GroupName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class SemanticGroupsConfig(Config):
    """Hyper-parameters of `SemanticGroups` (arXiv:2602.06563)."""

    kind: Literal["semantic_groups"] = "semantic_groups"
    """Name of the tokenization."""
    token_dim: PositiveInt = 64
    """Width of a token."""
    groups: dict[GroupName, tuple[str, ...]] = {}
    """Group -> its features. A group is computed at the highest rate of its members, so do not mix
    user and item features in one."""
    rest: Literal["error", "token"] = "error"
    """What happens to features in no group: a mistake, or one more token for those of each rate."""
    global_token: bool = False
    """Whether to add a token made of all groups; it has the highest rate of all."""
    user_global_token: bool = False
    """Whether to add a token made of all groups of the user, and of nothing else. Of use where an
    interaction keeps user tokens apart (`separation`): the global token is the candidate's."""
    hidden_dim: PositiveInt | None = None
    """Hidden width of each projection; without it the projections are linear."""


class _Group(NamedTuple):
    """What one token is made of."""

    name: str
    members: tuple[str, ...]
    rate: Rate


class _Projection(nn.Module):
    """A group's features, side by side, projected to a token."""

    def __init__(
        self,
        members: tuple[str, ...],
        in_dim: int,
        config: SemanticGroupsConfig,
        *,
        generator: Generator,
    ) -> None:
        super().__init__()
        self.members = members
        hidden_dim = config.hidden_dim
        self.project: nn.Module
        if hidden_dim is None:
            self.project = linear(in_dim, config.token_dim, generator=generator)
        else:
            self.project = nn.Sequential(
                linear(in_dim, hidden_dim, generator=generator),
                nn.GELU(),
                linear(hidden_dim, config.token_dim, generator=generator),
            )

    def forward(self, inputs: Inputs) -> Tensor:
        parts = [inputs.features[name] for name in self.members]
        y: Tensor = self.project(parts[0] if len(parts) == 1 else torch.cat(parts, dim=1))
        return y


class SemanticGroups(nn.Module):
    """Projects groups of features to tokens, each by its own weights.

    Tokens stand by rate and then in the order of the groups, global tokens first of their rates,
    the tokens of `rest` last of theirs.

    Example:
        >>> SemanticGroupsConfig(groups={"film": ("item_id", "genres")}).rest
        'error'

    Raises:
        ConfigError: A group names an unknown feature or is empty, or a feature is in two groups
            or (with `rest: error`) in none; the message holds every such mistake. Or the user's
            global token is wanted, and the user has no group.
    """

    Config: ClassVar[type[Config]] = SemanticGroupsConfig
    gives: ClassVar[Takes] = "tokens"

    def __init__(
        self, config: SemanticGroupsConfig, layout: Layout, *, generator: Generator
    ) -> None:
        super().__init__()
        groups = _groups(config, layout)
        self.rates = tuple(group.rate for group in groups)
        widths = [sum(layout.features[name].width for name in group.members) for group in groups]
        # A prefix, because a group may be called what a module dictionary calls its methods.
        self.projections = nn.ModuleDict(
            {
                f"group_{group.name}": _Projection(
                    group.members, width, config, generator=generator
                )
                for group, width in zip(groups, widths, strict=True)
            }
        )
        self.config, self.widths = config, tuple(widths)
        counts = {rate: self.rates.count(rate) for rate in TOKEN_RATES}
        names = [group.name for group in groups]
        self.tokens = TokenLayout(
            gives="tokens",
            num_user=counts[Rate.USER],
            num_request=counts[Rate.REQUEST],
            num_candidate=counts[Rate.CANDIDATE],
            dim=config.token_dim,
            global_token=names.index("global") if config.global_token else None,
        )

    def cost_letters(self) -> dict[str, int]:
        """Give the sizes of all projections' matrices and biases."""
        dim, hidden, total = self.config.token_dim, self.config.hidden_dim, sum(self.widths)
        if hidden is None:
            return {"weights": total * dim, "offsets": len(self.widths) * dim}
        return {
            "weights": (total + len(self.widths) * dim) * hidden,
            "offsets": len(self.widths) * (hidden + dim),
        }

    def forward(self, inputs: Inputs) -> Tokens:
        """Give the tokens by rate."""
        make = {rate: partial(self._of_rate, inputs, rate) for rate in set(self.rates)}
        return assemble(inputs, make, self.tokens.dim)

    def _of_rate(self, inputs: Inputs, rate: Rate) -> Tensor:
        tokens = [
            project(inputs)
            for project, own in zip(self.projections.values(), self.rates, strict=True)
            if own == rate
        ]
        # Laid out tokens first, as per-token layers read them.
        return torch.stack(tokens).transpose(0, 1)


def _groups(config: SemanticGroupsConfig, layout: Layout) -> list[_Group]:
    """Check the groups, add those of `rest` and the global one, and sort them by rate."""
    taken = {name for members in config.groups.values() for name in members}
    rest = [name for name in layout.features if name not in taken]
    problems = _problems(config, layout, rest)
    if problems:
        raise ConfigError(join_problems(problems, where=PATH))
    groups = [
        _Group(name, members, max(token_rate(layout.features[one].rate) for one in members))
        for name, members in config.groups.items()
    ]
    if config.global_token:
        everything = tuple(name for group in groups for name in group.members) + tuple(rest)
        rate = max(token_rate(layout.features[one].rate) for one in everything)
        groups.insert(0, _Group("global", everything, rate))
    for rate in TOKEN_RATES:
        members = tuple(name for name in rest if token_rate(layout.features[name].rate) == rate)
        if members:
            groups.append(_Group(f"rest_{rate.name.lower()}", members, rate))
    if config.user_global_token:
        groups.insert(0, _user_global(groups))
    # The sort is stable: what stands first of all stands first of its rate.
    return sorted(groups, key=lambda group: group.rate)


def _user_global(groups: list[_Group]) -> _Group:
    """Give the group of everything in the groups of the user."""
    own = [group for group in groups if group.rate == Rate.USER and group.name != "global"]
    if not own:
        rates = ", ".join(f"{group.name} {group.rate.name.lower()}" for group in groups)
        raise ConfigError(
            "model.tokenization.user_global_token: no group is of the user alone. Got "
            f"{rates}. Put features of the user into a group of their own, or switch it off."
        )
    members = tuple(name for group in own for name in group.members)
    return _Group("user_global", members, Rate.USER)


def _problems(config: SemanticGroupsConfig, layout: Layout, rest: list[str]) -> list[str]:
    """List every mistake in the groups."""
    problems = []
    owners: dict[str, list[str]] = {}
    reserved = {"global", "user_global", *(f"rest_{rate.name.lower()}" for rate in TOKEN_RATES)}
    for group, members in config.groups.items():
        if group in reserved:
            problems.append(f"group {group!r}: the name is taken by RankLoom. Use another.")
        if not members:
            problems.append(f"group {group!r}: has no features. Name some, or remove it.")
        for name in members:
            owners.setdefault(name, []).append(group)
    for name, groups in owners.items():
        if name not in layout.features:
            hint = did_you_mean(name, layout.features)
            problems.append(f"group {groups[0]!r}: unknown feature {name!r}.{hint}")
        elif len(groups) > 1:
            where = " and ".join(dict.fromkeys(repr(group) for group in groups))
            problems.append(f"feature {name!r} stands {len(groups)} times, in {where}. Keep one.")
    if config.rest == "error":
        problems += [
            f"feature {name!r} is in no group. Add it to one, or set rest: token." for name in rest
        ]
    return problems
