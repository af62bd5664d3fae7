"""The rules that hold for the settings of every process."""

import pytest
from pydantic import SecretStr

from kitemesh_cli import settings as cli_settings
from kitemesh_gateway.settings import GatewaySettings
from kitemesh_model_runner.settings import RunnerSettings
from kitemesh_orchestrator.settings import OrchestratorSettings
from kitemesh_runtime.masking import mask_url
from kitemesh_runtime.settings import KNOWN, PREFIX, Settings, SettingsError, load, render
from kitemesh_tool_executor.settings import ExecutorSettings

MODELS: tuple[type[Settings], ...] = (
    GatewaySettings,
    OrchestratorSettings,
    RunnerSettings,
    ExecutorSettings,
    *cli_settings.MODELS,
)
READ_ELSEWHERE = {"AMBIGUITY", "FAILPOINT"}
REQUIRED = {"KITEMESH_KEY_PEPPER": "a pepper for the tests"}


def test_known_names_are_those_that_the_models_declare() -> None:
    declared = {name.upper() for model in MODELS for name in model.model_fields}
    assert declared | READ_ELSEWHERE == KNOWN


@pytest.mark.parametrize("model", MODELS)
def test_every_setting_says_what_it_means(model: type[Settings]) -> None:
    for name, field in model.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


@pytest.mark.requirement("settings:all-problems-at-once")
@pytest.mark.parametrize("model", MODELS)
def test_a_process_accepts_what_another_one_needs_and_refuses_what_none_knows(model: type[Settings]) -> None:
    load(model, {**REQUIRED, "KITEMESH_SWEEP_S": "5", "KITEMESH_POOL": "default", "HOME": "/"})
    with pytest.raises(SettingsError) as caught:
        load(model, {**REQUIRED, "KITEMESH_SLOT": "5"})
    assert caught.value.problems == ["KITEMESH_SLOT is not a kitemesh setting"]


@pytest.mark.requirement("settings:all-problems-at-once")
def test_all_problems_are_told_at_once() -> None:
    environ = {
        "KITEMESH_NATS_URL": "http://a",
        "KITEMESH_MONGO_URL": "b",
        "KITEMESH_HEALTH_PORT": "65536",
        "KITEMESH_LOG_LEVEL": "loud",
        "KITEMESH_KEY_PEPPER": "short",
        "KITEMESH_NONSENSE": "1",
    }
    with pytest.raises(SettingsError) as caught:
        load(GatewaySettings, environ)
    assert [problem.partition(" ")[0].rstrip(":") for problem in caught.value.problems] == sorted(environ)


@pytest.mark.requirement("settings:secrets-are-masked")
@pytest.mark.parametrize("secret", ["nats://u:s3cret@h:1", "mongodb://u:s3cret@h", "s3cret-pepper-of-the-tests"])
def test_a_refused_secret_is_not_repeated(secret: str) -> None:
    environ = {**REQUIRED, "KITEMESH_NATS_URL": f"x{secret}", "KITEMESH_MONGO_URL": f"x{secret}"}
    with pytest.raises(SettingsError) as caught:
        load(GatewaySettings, environ)
    assert "s3cret" not in str(caught.value)


@pytest.mark.requirement("settings:secrets-are-masked")
def test_what_is_printed_masks_every_secret() -> None:
    environ = {
        "KITEMESH_NATS_URL": "nats://u:s3cret@h:1",
        "KITEMESH_MONGO_URL": "mongodb://u:s3cret@h",
        "KITEMESH_KEY_PEPPER": "s3cret-pepper-of-the-tests",
    }
    settings = load(GatewaySettings, environ)
    printed = render(settings)
    assert "s3cret" not in printed
    lines = dict(line.partition("   # ")[0].split("=", 1) for line in printed.splitlines())
    assert set(lines) == {PREFIX + name.upper() for name in GatewaySettings.model_fields}
    secrets = [name for name, value in settings if isinstance(value, SecretStr)]
    assert secrets == ["nats_url", "mongo_url", "key_pepper"]
    assert [lines[PREFIX + name.upper()] for name in secrets] == ["nats://u:***@h:1", "mongodb://u:***@h", "**********"]


@pytest.mark.requirement("settings:secrets-are-masked")
@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("nats://host:4222", "nats://host:4222"),
        ("nats://u:s3cret@a:1,tls://s3cret@b:2", "nats://u:***@a:1,tls://***@b:2"),
        ("nats://u:s3cret@a:1,b:2,u:s3cret@c", "nats://u:***@c"),
        ("nats://u:s3/cr?et@s3cret,s3cret@h", "nats://u:***@h"),
        (
            "mongodb://u:s3cret@a:1,b:2/db?tls=true&tlsCertificateKeyFilePassword=s3cret",
            "mongodb://u:***@a:1,b:2/db?tls=true&tlsCertificateKeyFilePassword=***",
        ),
        (
            "mongodb+srv://h/?authMechanismProperties=AWS_SESSION_TOKEN:s3cret",
            "mongodb+srv://h/?authMechanismProperties=***",
        ),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, masked: str) -> None:
    assert mask_url(url) == masked


def test_what_differs_from_its_default_is_marked() -> None:
    lines = render(load(GatewaySettings, {**REQUIRED, "KITEMESH_PORT": "8003"})).splitlines()
    assert [line for line in lines if "#" in line] == ["KITEMESH_PORT=8003   # default: 8002"]


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        ("PORT", "", "must be a whole number from 0 to 65535"),
        ("PORT", "abc", "must be a whole number from 0 to 65535"),
        ("BODY_TIMEOUT_S", "0", "must be a number above 0 and at most 300"),
        ("PING_S", "nan", "must be a number from 1 to 300"),
        ("LOG_LEVEL", "loud", "must be one of debug, info, warning, error"),
        ("REPLICA", "a.b", "must be at most 40 of A-Z a-z 0-9 _ -"),
        ("KEY_PEPPER", "short", "must be set: at least 16 characters, the same for every gateway"),
    ],
)
def test_a_wrong_value_is_told_with_what_would_be_right(variable: str, text: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(GatewaySettings, {**REQUIRED, PREFIX + variable: text})
    (problem,) = caught.value.problems
    assert problem.startswith(f"{PREFIX}{variable}: {said}")


def test_links_that_kubernetes_injects_are_no_settings() -> None:
    links = {
        "KITEMESH_PORT": "tcp://10.0.0.1:8002",
        "KITEMESH_PORT_8002_TCP_ADDR": "10.0.0.1",
        "KITEMESH_GATEWAY_SERVICE_HOST": "10.0.0.1",
        "KITEMESH_GATEWAY_SERVICE_PORT_HTTP": "8002",
        "KITEMESH_GATEWAY_PORT": "tcp://10.0.0.1:8002",
    }
    assert load(GatewaySettings, {**REQUIRED, **links}).port == 8002
