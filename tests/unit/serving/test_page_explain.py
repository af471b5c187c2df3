"""Changes are differences of two rankings, within limits."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from tests.unit.serving.page_double import REQUEST, PageDouble

from rankloom.errors import OverloadedError, RequestError
from rankloom.serving.page import explain as module
from rankloom.serving.page.explain import Explainer, Explanation
from rankloom.serving.request import RankRequest


def explained(
    backend: PageDouble, request: RankRequest = REQUEST, *, by_feature: bool = False
) -> Explanation:
    return asyncio.run(Explainer(backend).explain(request, by_feature=by_feature))


def test_a_change_is_the_difference_of_two_rankings() -> None:
    # click = age 3 + price (10, 20) + item (3, 5) * (4 dropped + 2 events) = (31, 53).
    found = explained(PageDouble())
    np.testing.assert_array_equal(found.result.scores["click"], [31, 53])
    clicks = {one.group.name: one.scores["click"].tolist() for one in found.changes}
    assert clicks == {
        "age": [-1, -1],
        "history": [-18, -30],
        "item": [-18, -30],
        "price": [-9, -19],
        "price_band": [-9, -19],
    }
    history = found.changes[1]
    assert history.scores["buy"].tolist() == [-36, -60]
    assert history.blended.tolist() == [13**2 - 31**2, 23**2 - 53**2]
    assert found.without_default == {"hour": "context/hour"}


def test_a_model_s_groups_change_together_unless_each_feature_is_asked_for() -> None:
    backend = PageDouble({"goods": ["item", "price", "price_band"]})
    by_group, by_feature = explained(backend), explained(backend, by_feature=True)
    assert by_group.changes[-1].group.name == "goods"
    assert by_group.changes[-1].scores["click"].tolist() == [-27, -49]
    assert len(by_feature.changes) == 5


def test_ids_change_nothing_that_a_store_knows_by_them() -> None:
    lacking = replace(REQUEST, candidates={"item": [3, 5]})
    found = explained(PageDouble(), lacking)
    clicks = {one.group.name: one.scores["click"].tolist() for one in found.changes}
    assert (clicks["item"], clicks["price"]) == ([-18, -30], [-9, -19])


def test_only_some_are_ranked_at_one_time_and_late() -> None:
    backend = PageDouble()
    explained(backend, replace(REQUEST, deadline_ms=5.0))
    assert len(backend.tried) == 6
    assert backend.most_running == module.AT_ONCE == 4
    assert {one.deadline_ms for one in backend.tried} == {module.DEADLINE_MS}


def test_variants_take_no_room_from_users() -> None:
    backend = PageDouble()
    explained(backend)
    # The user that was asked about is one; all others are made up.
    assert backend.kept == [True, False, False, False, False, False]


def test_infinite_scores_change_by_no_number() -> None:
    infinite = replace(REQUEST, candidates={"item": [3, 5], "price": [10.0, np.inf]})
    age = explained(PageDouble(), infinite).changes[0]
    np.testing.assert_array_equal(age.scores["click"], [-1, np.nan])


def test_groups_beyond_the_limit_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_GROUPS", 3)
    found = explained(PageDouble())
    assert [one.group.name for one in found.changes] == ["age", "history", "item"]
    assert found.left_out == ["price", "price_band"]


def test_too_many_candidates_are_refused_before_any_is_ranked() -> None:
    backend, many = PageDouble(), [1] * 1001
    with pytest.raises(RequestError, match=r"at most 1000 can be explained\. Got 1001"):
        explained(backend, replace(REQUEST, candidates={"item": many, "price": many}))
    assert not backend.tried


def test_another_artifact_meanwhile_ends_it() -> None:
    backend = PageDouble()
    backend.next_digests = ["d" * 64, "d" * 64, "e" * 64]
    with pytest.raises(OverloadedError, match="another artifact"):
        explained(backend)
    backend.is_ready = False
    with pytest.raises(OverloadedError, match="nothing is served"):
        explained(backend)


def test_a_failure_stops_the_rest() -> None:
    backend = PageDouble()
    backend.fail_at = 2

    async def ask() -> int:
        explainer = Explainer(backend)
        with pytest.raises(OverloadedError, match="full"):
            await explainer.explain(REQUEST)
        await asyncio.sleep(0.05)
        before = backend.num_finished
        # What was stopped takes no room from later explanations.
        await explainer.explain(REQUEST)
        return before

    assert asyncio.run(ask()) == 1
    assert backend.num_finished == 1 + 6
