import pytest

from kitemesh_gateway.app import anonymous
from kitemesh_gateway.settings import GatewaySettings
from kitemesh_runtime.settings import KNOWN, SettingsError, load, render

PEPPER = "0123456789abcdef"


@pytest.mark.requirement("stream:status-line-waits")
def test_the_defaults_are_the_documented_ones() -> None:
    settings = load(GatewaySettings, {"KITEMESH_KEY_PEPPER": PEPPER})
    assert (settings.host, settings.port) == ("127.0.0.1", 8002)
    assert (settings.max_body_bytes, settings.body_timeout_s) == (1024 * 1024, 10)
    assert (settings.first_event_s, settings.ping_s, settings.slow_client_s) == (10, 15, 15)
    assert (settings.max_unsent_bytes, settings.turn_budget_s) == (256 * 1024, 600)
    assert anonymous(settings) is None


def test_every_setting_is_one_that_processes_know() -> None:
    assert {name.upper() for name in GatewaySettings.model_fields} <= KNOWN


@pytest.mark.parametrize("environ", [{}, {"KITEMESH_KEY_PEPPER": PEPPER[:-1]}])
def test_a_pepper_that_is_missing_or_short_stops_the_start(environ: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="KITEMESH_KEY_PEPPER"):
        load(GatewaySettings, environ)


def test_the_pepper_is_never_printed() -> None:
    assert PEPPER not in render(load(GatewaySettings, {"KITEMESH_KEY_PEPPER": PEPPER}))


def test_an_anonymous_tenant_is_the_default_principal() -> None:
    principal = anonymous(
        load(
            GatewaySettings,
            {
                "KITEMESH_KEY_PEPPER": PEPPER,
                "KITEMESH_ANONYMOUS_TENANT": "dev",
                "KITEMESH_ANONYMOUS_AGENT": "assistant",
            },
        ),
    )
    assert principal is not None
    assert (principal.tenant, principal.key, principal.default_agent) == ("dev", "", "assistant")
    assert principal.scopes == {"chat"}


def test_an_installation_says_what_requests_without_a_credential_may_do() -> None:
    given = {
        "KITEMESH_KEY_PEPPER": PEPPER,
        "KITEMESH_ANONYMOUS_TENANT": "dev",
        "KITEMESH_ANONYMOUS_SCOPES": "chat,approve",
    }
    principal = anonymous(load(GatewaySettings, given))
    assert principal is not None
    assert principal.scopes == {"chat", "approve"}
    with pytest.raises(SettingsError, match="KITEMESH_ANONYMOUS_SCOPES"):
        load(GatewaySettings, {**given, "KITEMESH_ANONYMOUS_SCOPES": "everything"})
