from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rankloom.config import resolve
from rankloom.errors import ConfigError, SchemaError
from rankloom.layers.protocols import FeatureLayout, Inputs, Layout
from rankloom.schema import Rate
from rankloom.tokenization import TOKENIZATIONS

USER, REQUEST, CANDIDATE = Rate.USER, Rate.REQUEST, Rate.CANDIDATE
MIXED = {
    "item": (3, CANDIDATE),
    "age": (1, USER),
    "hour": (2, REQUEST),
    "user": (3, USER),
    "genre": (3, CANDIDATE),
}


def layout(**features: tuple[int, Rate]) -> Layout:
    return Layout(
        features={name: FeatureLayout(width=w, rate=rate) for name, (w, rate) in features.items()}
    )


def build(kind: str, features: dict[str, tuple[int, Rate]], **options: Any) -> Any:
    cls = resolve(kind, TOKENIZATIONS, path="kind")
    generator = torch.Generator().manual_seed(0)
    return cls(cls.Config(**options), layout(**features), generator=generator)


def inputs(features: dict[str, tuple[int, Rate]], rows: int = 2) -> Inputs:
    generator = torch.Generator().manual_seed(1)
    drawn = {name: torch.randn(rows, w, generator=generator) for name, (w, _) in features.items()}
    return Inputs(drawn, {}, {}, torch.arange(rows))


def test_flat_puts_features_side_by_side_in_order() -> None:
    tokenize, given = build("flat", MIXED, multiple=1), inputs(MIXED)
    assert tokenize.tokens.dim == 12
    assert torch.equal(tokenize(given), torch.cat(list(given.features.values()), dim=1))


def test_flat_is_filled_up_with_zeros() -> None:
    tokenize, given = build("flat", MIXED, multiple=8), inputs(MIXED)
    bare = build("flat", MIXED, multiple=1)
    assert tokenize.tokens.dim == 16
    assert torch.equal(tokenize(given), torch.nn.functional.pad(bare(given), (0, 4)))


def test_fields_stacks_features() -> None:
    same = {"item": (3, CANDIDATE), "user": (3, USER)}
    tokenize, given = build("fields", same), inputs(same)
    assert (tokenize.tokens.num_tokens, tokenize.tokens.dim) == (2, 3)
    assert torch.equal(tokenize(given)[:, 1], given.features["user"])


def test_fields_names_the_features_of_odd_width() -> None:
    with pytest.raises(SchemaError, match="Got age=1, hour=2; the others have 3"):
        build("fields", MIXED)


def test_per_feature_projects_each_feature_by_its_own_weights() -> None:
    tokenize, given = build("per_feature", MIXED, token_dim=4), inputs(MIXED)
    tokens = tokenize(given)
    counts = (tokenize.tokens.num_user, tokenize.tokens.num_request, tokenize.tokens.num_candidate)
    assert counts == (2, 1, 2)
    assert [tuple(part.shape) for part in tokens] == [(2, 2, 4), (2, 1, 4), (2, 2, 4)]
    # Of the user's features, the narrower stands first.
    age = tokenize.projections[0].project
    torch.testing.assert_close(tokens.user[:, 0], given.features["age"] @ age.weight[0])
    both = tokenize.projections[3].project
    torch.testing.assert_close(tokens.candidate[:, 1], given.features["genre"] @ both.weight[1])


GROUPS = {"film": ("item", "genre"), "profile": ("user", "age"), "moment": ("hour",)}


@pytest.mark.parametrize("hidden_dim", [None, 8])
def test_groups_stand_by_rate(hidden_dim: int | None) -> None:
    tokenize = build("semantic_groups", MIXED, groups=GROUPS, token_dim=4, hidden_dim=hidden_dim)
    given = inputs(MIXED)
    tokens = tokenize(given)
    assert [part.shape[1] for part in tokens] == [1, 1, 1]
    names = {"user": "profile", "request": "moment", "candidate": "film"}
    for rate, group in names.items():
        x = torch.cat([given.features[name] for name in GROUPS[group]], dim=1)
        expected = tokenize.projections[f"group_{group}"].project(x)
        torch.testing.assert_close(getattr(tokens, rate)[:, 0], expected)


def test_a_group_has_the_highest_rate_of_its_members() -> None:
    groups = {"a": ("user", "hour"), "b": ("age", "item", "genre")}
    tokens = build("semantic_groups", MIXED, groups=groups).tokens
    assert (tokens.num_user, tokens.num_request, tokens.num_candidate) == (0, 1, 1)


def gradient_of(token: Tensor, given: Inputs) -> dict[str, float]:
    gradients = torch.autograd.grad(token.square().sum(), list(given.features.values()))
    return dict(zip(given.features, (g.abs().sum().item() for g in gradients), strict=True))


def test_global_token_is_made_of_all_groups_and_first_of_its_rate() -> None:
    tokenize = build("semantic_groups", MIXED, groups=GROUPS, global_token=True)
    given = inputs(MIXED)
    for feature in given.features.values():
        feature.requires_grad_()
    tokens = tokenize(given)
    assert tokenize.tokens.global_token == 2
    assert min(gradient_of(tokens.all()[:, 2], given).values()) > 0


def test_global_token_of_a_user_only_model_is_a_user_token() -> None:
    user = {"age": (1, USER), "user": (3, USER)}
    tokens = build(
        "semantic_groups", user, groups={"all": ("age", "user")}, global_token=True
    ).tokens
    assert (tokens.num_user, tokens.num_candidate, tokens.global_token) == (2, 0, 0)


def test_user_tokens_do_not_read_the_candidate() -> None:
    for tokenize in (
        build("semantic_groups", MIXED, groups=GROUPS, global_token=True),
        build("per_feature", MIXED),
    ):
        given = inputs(MIXED)
        before = tokenize(given)
        given.features["item"] += 1.0
        given.features["hour"] += 1.0
        after = tokenize(given)
        assert torch.equal(before.user, after.user)
        assert not torch.equal(before.request, after.request)
        assert not torch.equal(before.candidate, after.candidate)


def test_rest_makes_a_token_of_each_rate_s_other_features() -> None:
    tokenize = build("semantic_groups", MIXED, groups={"film": ("item",)}, rest="token")
    assert list(tokenize.projections) == [
        "group_rest_user", "group_rest_request", "group_film", "group_rest_candidate",
    ]  # fmt: skip
    assert tokenize.projections["group_rest_user"].members == ("age", "user")


def test_all_mistakes_in_groups_come_at_once() -> None:
    groups = {"film": ("item", "gener"), "style": ("item", "age"), "empty": (), "global": ("hour",)}
    with pytest.raises(ConfigError) as caught:
        build("semantic_groups", MIXED, groups=groups)
    message = str(caught.value)
    for part in (
        "unknown feature 'gener'. Did you mean 'genre'?",
        "feature 'item' stands 2 times, in 'film' and 'style'",
        "group 'empty': has no features",
        "group 'global': the name is taken",
        "feature 'user' is in no group",
        "feature 'genre' is in no group",
        "model.tokenization.groups has 6 mistakes",
    ):
        assert part in message


def test_groups_may_be_called_like_methods_of_a_dictionary() -> None:
    groups = {"items": ("item", "genre"), "keys": ("user", "age"), "pop": ("hour",)}
    assert build("semantic_groups", MIXED, groups=groups).tokens.num_tokens == 3


@pytest.mark.parametrize("hidden_dim", [None, 8])
def test_tokenizer_parameters(hidden_dim: int | None) -> None:
    tokenize = build("semantic_groups", MIXED, groups=GROUPS, token_dim=4, hidden_dim=hidden_dim)
    # Groups of widths 6, 4 and 2.
    expected = 12 * 4 + 3 * 4 if hidden_dim is None else 12 * 8 + 3 * 8 + 3 * (8 * 4 + 4)
    assert sum(parameter.numel() for parameter in tokenize.parameters()) == expected


def test_users_global_token_is_made_of_the_users_groups_alone() -> None:
    groups = {"film": ("item", "genre"), "who": ("user",), "years": ("age",), "moment": ("hour",)}
    tokenize = build(
        "semantic_groups", MIXED,
        groups=groups, token_dim=4, global_token=True, user_global_token=True,
    )  # fmt: skip
    given = inputs(MIXED)
    tokens = tokenize(given)
    assert [part.shape[1] for part in tokens] == [3, 1, 2]
    # First of the user's tokens; the global token is still the candidate's.
    assert next(iter(tokenize.projections)) == "group_user_global"
    assert tokenize.tokens.global_token == 4
    x = torch.cat([given.features["user"], given.features["age"]], dim=1)
    expected = tokenize.projections["group_user_global"].project(x)
    torch.testing.assert_close(tokens.user[:, 0], expected)
    sizes = tokenize.cost_letters()
    count = sum(parameter.numel() for parameter in tokenize.parameters())
    # Widths 4, 12, 6, 3, 1 and 2.
    assert sizes["weights"] + sizes["offsets"] == count == 28 * 4 + 6 * 4


def test_users_global_token_takes_the_rest_of_the_user() -> None:
    tokenize = build(
        "semantic_groups", MIXED, groups={"who": ("user",)}, rest="token", user_global_token=True
    )
    assert tokenize.projections["group_user_global"].members == ("user", "age")


def test_users_global_token_needs_a_group_of_the_user() -> None:
    groups = {"all": ("item", "user", "age", "genre"), "moment": ("hour",)}
    with pytest.raises(ConfigError, match=r"no group is of the user alone. Got all candidate, mom"):
        build("semantic_groups", MIXED, groups=groups, user_global_token=True)


def test_name_of_the_users_global_token_is_taken() -> None:
    with pytest.raises(ConfigError, match="group 'user_global': the name is taken"):
        build("semantic_groups", MIXED, groups={"user_global": ("user",)}, rest="token")
