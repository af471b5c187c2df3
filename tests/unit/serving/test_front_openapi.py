"""The OpenAPI document is valid, and the server does what it says."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from tests.unit.serving.front_doubles import SERVED, Double, ask

from rankloom.serving.front.app import make_app
from rankloom.serving.front.config import FrontConfig, TokenConfig
from rankloom.serving.front.openapi import openapi_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import schemathesis
    from schemathesis.specs.openapi import checks as openapi_checks

described = schemathesis.openapi.from_asgi("/openapi.json", make_app(Double(), FrontConfig()))


def test_it_names_columns_places_and_tasks() -> None:
    document = ask(Double(), path="/openapi.json", method="GET").json
    schemas = document["components"]["schemas"]
    members = schemas["Request"]["properties"]
    assert list(members["user"]["properties"]) == ["user", "history_item"]
    assert members["user"]["properties"]["history_item"] == {
        "description": "sequence feature history"
    }
    by_column, by_candidate = members["candidates"]["anyOf"]
    assert list(by_column["properties"]) == ["item", "price"]
    assert list(by_candidate["items"]["properties"]) == ["item", "price"]
    assert schemas["Result"]["properties"]["scores"]["required"] == ["click", "buy"]
    assert document["info"]["title"] == "RankLoom: double"


def test_it_names_the_token_where_there_is_one() -> None:
    config = FrontConfig(token=TokenConfig(variable="X"))
    document = openapi_of(SERVED, config)
    assert document["security"] == [{"bearer": []}]
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    assert document["paths"]["/health/live"]["get"]["security"] == []
    assert openapi_of(SERVED, FrontConfig())["security"] == []


@pytest.mark.parametrize("served", [SERVED, None])
def test_it_is_valid(served: Any) -> None:
    schemathesis.openapi.from_dict(openapi_of(served, FrontConfig())).validate()
    broken = openapi_of(served, FrontConfig())
    del broken["info"]["title"]
    with pytest.raises(Exception, match="title"):
        schemathesis.openapi.from_dict(broken).validate()


@pytest.mark.filterwarnings("ignore:Skipped test cases with unsupported payload media types")
@described.parametrize()
@settings(max_examples=30, suppress_health_check=list(HealthCheck))
def test_the_server_does_what_it_says(case: Any) -> None:
    # A deadline may be too short to be met, and that columns have one length is in no schema.
    checks = schemathesis.checks
    unsaid = [checks.not_a_server_error, openapi_checks.positive_data_acceptance]
    response = case.call_and_validate(excluded_checks=unsaid)
    assert response.status_code in {200, 400, 404, 405, 415, 504}
