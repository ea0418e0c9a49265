"""The OpenAPI document says what the service does, with examples that it really accepts and gives."""

from __future__ import annotations

import jsonschema_rs
import pytest

from ava.config import Settings
from ava.main import create_app
from ava.models import ImportReport, MonthlyReport, OrderIn, Positions, Trade, TradePage
from ava.problems import TEXTS
from ava.services.rules import Reason
from magnus import ConfigError, DatabaseConfig

pytest_plugins = ("service_fixtures",)

METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture(scope="module")
def document():
    return create_app(Settings(), config=DatabaseConfig(dsn="postgresql://nobody@localhost/none")).openapi()


def operations(document):
    for path, item in document["paths"].items():
        for method in METHODS & item.keys():
            yield method, path, item[method]


def test_the_routes_of_the_contract_are_there(document):
    """Under the names and methods that are fixed."""
    found = {(method, path) for method, path, _ in operations(document)}
    assert found == {
        ("post", "/api/trades"),
        ("get", "/api/trades"),
        ("get", "/api/trades/{trade_id}"),
        ("get", "/api/positions"),
        ("get", "/api/reports/monthly"),
        ("post", "/api/import"),
        ("get", "/api/account"),
        ("get", "/api/health/liveness"),
        ("get", "/api/health/readiness"),
        ("get", "/api/health/stats"),
    }


def test_every_operation_is_described(document):
    """A summary, a description, a tag, an id of its own."""
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(ids) == len(set(ids))
    for _, path, operation in operations(document):
        assert operation["summary"], path
        assert operation["description"], path
        assert operation["tags"], path


def test_private_operations_name_the_token_and_its_refusal(document):
    """Security scheme, 401 with its challenge, and 503 with Retry-After; health has none of these."""
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    for _, path, operation in operations(document):
        is_private = not path.startswith("/api/health")
        assert ("security" in operation) is is_private, path
        if is_private:
            assert "WWW-Authenticate" in operation["responses"]["401"]["headers"]
            assert "Retry-After" in operation["responses"]["503"]["headers"]


def test_every_error_is_a_problem_with_an_example(document):
    """Media type, schema, and one example a kind."""
    for _, path, operation in operations(document):
        for status, response in operation["responses"].items():
            if status < "400" or path.startswith("/api/health"):
                continue
            content = response["content"]["application/problem+json"]
            for example in content["examples"].values():
                assert example["value"]["status"] == int(status)
                assert jsonschema_rs.is_valid(content["schema"], example["value"])


def test_every_refusal_of_an_order_is_documented(document):
    """With the type that callers see."""
    responses = document["paths"]["/api/trades"]["post"]["responses"]
    types = {
        example["value"]["type"]
        for status in ("409", "422")
        for example in responses[status]["content"]["application/problem+json"]["examples"].values()
    }
    assert {f"urn:ava:problem:{reason}" for reason in Reason} <= types
    assert set(Reason) <= TEXTS.keys()


@pytest.mark.parametrize("model", [OrderIn, Trade, TradePage, Positions, MonthlyReport, ImportReport])
def test_examples_are_valid(document, model):
    """Each model has an example, and it follows the schema it stands in."""
    schema = document["components"]["schemas"][model.__name__]
    validator = jsonschema_rs.validator_for({"$ref": f"#/components/schemas/{model.__name__}", **document})
    assert schema["examples"]
    for example in schema["examples"]:
        validator.validate(example)
        model.model_validate(example)


async def test_answers_follow_their_schemas(ava):
    """What the service gives is what the document promises."""
    document = (await ava.client.get("/openapi.json")).json()
    created = await ava.order("AAAA", "buy", "10")
    await ava.order("AAAA", "sell", "1")
    for answer, name in (
        (created, "Trade"),
        (await ava.get("/api/trades", limit=1), "TradePage"),
        (await ava.get("/api/positions"), "Positions"),
        (await ava.get("/api/reports/monthly"), "MonthlyReport"),
        (await ava.get("/api/account"), "Account"),
    ):
        validator = jsonschema_rs.validator_for({"$ref": f"#/components/schemas/{name}", **document})
        validator.validate(answer.json())


async def test_the_examples_of_the_document_work_as_they_stand(ava):
    """A reader who copies them gets what the page shows."""
    document = (await ava.client.get("/openapi.json")).json()
    (order,) = document["components"]["schemas"]["OrderIn"]["examples"]
    answer = await ava.send("POST", "/api/trades", json=order, headers={"Idempotency-Key": "example"})
    assert answer.status_code == 201
    body = document["paths"]["/api/import"]["post"]["requestBody"]["content"]["text/csv"]["example"]
    assert (await ava.upload(body)).json()["loaded"] == 1


async def test_unknown_paths_and_methods_are_problems(ava):
    """404 and 405 with Allow, as problem documents, also with a slash at the end."""
    for method, path, status in (
        ("GET", "/nothing", 404),
        ("GET", "/api/trades/", 404),
        ("DELETE", "/api/trades", 405),
        ("PUT", "/api/positions", 405),
        ("GET", "/api/import", 405),
    ):
        answer = await ava.send(method, path)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
        assert ("allow" in answer.headers) is (status == 405)
        assert path != "/api/trades" or answer.headers["allow"] == "GET, POST"
        assert answer.json()["request_id"] == answer.headers["x-request-id"]


async def test_the_first_page_leads_to_everything(ava):
    """Plain HTML that works without the internet; every link on it works."""
    page = await ava.client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    links = [part.partition('"')[0] for part in page.text.split('href="')[1:]]
    assert "/docs" in links
    for link in links:
        assert (await ava.client.get(link)).status_code == 200


def test_impossible_settings_name_their_variable(monkeypatch):
    """One clear error, for the environment and for arguments."""
    monkeypatch.setenv("AVA_PORT", "99999")
    with pytest.raises(ConfigError, match="AVA_PORT"):
        Settings.load()
    with pytest.raises(ConfigError, match="host"):
        Settings.load(port=1, host="")


def test_arguments_come_before_the_environment(monkeypatch):
    """An argument of None is not given."""
    monkeypatch.setenv("AVA_PORT", "81")
    monkeypatch.setenv("AVA_HOST", "")
    assert (Settings.load().port, Settings.load(port=82).port, Settings.load(port=None).port) == (81, 82, 81)
    assert Settings.load().host == "127.0.0.1"
