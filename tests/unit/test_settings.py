from pathlib import Path

import pytest
from pydantic import ValidationError

from bits_auth_proxy.settings.addresses import TcpAddress, UnixAddress
from bits_auth_proxy.settings.egress import is_exempt
from bits_auth_proxy.settings.fields import fields
from bits_auth_proxy.settings.loading import Loaded, SettingsError, load

SECRET = "canary-7f3a"
PAIR = {"BITS_CLIENT_ID": "acme", "BITS_CLIENT_SECRET": SECRET}


def loaded(
    environ: dict[str, str] | None = None,
    *,
    flags: dict[str, str] | None = None,
    config_file: Path | None = None,
    env_file: Path | None = None,
) -> Loaded:
    return load(
        environ=environ or {},
        flags=flags,
        config_file=str(config_file) if config_file else None,
        env_file=env_file,
        credentials_required=False,
    )


def faults(
    environ: dict[str, str],
    *,
    required: bool = False,
    config_file: Path | None = None,
    env_file: Path | None = None,
    flags: dict[str, str] | None = None,
) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(
            environ=environ,
            flags=flags,
            config_file=str(config_file) if config_file else None,
            env_file=env_file,
            credentials_required=required,
        )
    return caught.value.faults


def test_without_any_source_the_documented_defaults_hold() -> None:
    settings = loaded().settings
    assert settings.api_url == "https://api.bits.bi"
    assert settings.effective_token_url == "https://api.bits.bi/v1/oauth2/token"
    assert settings.userinfo_url == "https://api.bits.bi/oauth2/userinfo"
    assert settings.listen is None
    assert settings.admin_listen == (TcpAddress("127.0.0.1", 9090),)
    assert (settings.socket_mode, settings.access_log, settings.log_level) == (0o600, "errors", "info")
    assert settings.safe_operations == ("*.get", "*.list")
    assert (settings.token_wait, settings.drain_timeout, settings.startup_grace) == (5, 25, 30)
    assert settings.upstream.max_connections == 100
    assert settings.limits.replay_total == 16 * 1024 * 1024


def test_each_later_source_wins_and_is_named(tmp_path: Path) -> None:
    toml = tmp_path / "bits.toml"
    dotenv = tmp_path / ".env"
    variable = "BITS_UPSTREAM__MAX_CONNECTIONS"
    toml.write_text("[limits]\nhead = 4096\n\n[upstream]\nmax_connections = 1\n")
    dotenv.write_text(f"# a comment\n\n{variable}=1\n\nexport {variable}=2\n")
    name = "upstream.max_connections"
    stages = [
        loaded(),
        loaded(config_file=toml),
        loaded(config_file=toml, env_file=dotenv),
        loaded({variable: "3"}, config_file=toml, env_file=dotenv),
        loaded({variable: "3"}, config_file=toml, env_file=dotenv, flags={name: "4"}),
    ]
    assert [each.settings.upstream.max_connections for each in stages] == [100, 1, 2, 3, 4]
    origins = [each.origins.get(name, "default") for each in stages]
    assert origins[:3] == ["default", f"file {toml} line 5", ".env line 5"]
    assert origins[3:] == [f"environment {variable}", "flag --upstream-max-connections"]


def test_faults_say_where_they_stand_and_what_to_write(tmp_path: Path) -> None:
    toml, dotenv = tmp_path / "bits.toml", tmp_path / ".env"
    toml.write_text('token_wait = "soon"\n\n[upstream]\nmax_conections = 5\nwarm_connections = 1.5\n')
    dotenv.write_text("\n# why\nBITS_INSPECT=maybe\nBITS_LOG_FORMAT=xml\n")
    assert faults({"BITS_DRAIN_DELAY": "-1"}, config_file=toml, env_file=dotenv) == [
        (
            f"{toml} line 4: there is no setting 'upstream.max_conections'; "
            "did you mean upstream.max_connections?"
        ),
        "BITS_LOG_FORMAT: must be 'json' or 'console' (.env line 4)",
        "BITS_INSPECT: write true or false (.env line 3)",
        f"BITS_TOKEN_WAIT: write a number (file {toml} line 1)",
        "BITS_DRAIN_DELAY: must be greater than or equal to 0",
        f"BITS_UPSTREAM__WARM_CONNECTIONS: write a whole number (file {toml} line 5)",
    ]


@pytest.mark.parametrize("where", ["environment", "dotenv"])
def test_the_toml_file_may_be_named_by_a_variable(tmp_path: Path, where: str) -> None:
    toml = tmp_path / "bits.toml"
    toml.write_text('log_level = "error"\n')
    dotenv = tmp_path / ".env"
    dotenv.write_text(f"BITS_CONFIG={toml}\n" if where == "dotenv" else "")
    environ = {"BITS_CONFIG": str(toml)} if where == "environment" else {}
    assert loaded(environ, env_file=dotenv).settings.log_level == "error"


def test_the_process_environment_is_read_when_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITS_SCOPE", "application.read")
    assert load(env_file=None, credentials_required=False).settings.scope == "application.read"


def test_empty_and_otherwise_cased_variables_count_as_not_set() -> None:
    result = loaded({"BITS_LOG_LEVEL": "", "bits_log_level": "error", "Bits_Nonsense": "1"})
    assert result.settings.log_level == "info"
    assert result.warnings == ()


def test_lists_are_comma_separated_in_variables_and_lists_in_toml(tmp_path: Path) -> None:
    toml = tmp_path / "bits.toml"
    toml.write_text('listen = ["127.0.0.1:1", "unix:/a"]\nsafe_operations = ["x.get"]\n')
    both = (TcpAddress("127.0.0.1", 1), UnixAddress("/a"))
    assert loaded(config_file=toml).settings.listen == both
    settings = loaded({"BITS_LISTEN": "127.0.0.1:1, unix:/a", "BITS_ALLOW": "POST /v1/*,GET /x"}).settings
    assert settings.listen == both
    assert settings.allow == ("POST /v1/*", "GET /x")


def test_values_are_normalised() -> None:
    settings = loaded(
        {"BITS_SOCKET_MODE": "660", "BITS_LOG_LEVEL": "DEBUG", "BITS_API_URL": "https://API.bits.bi:444/"}
    ).settings
    assert (settings.socket_mode, settings.log_level) == (0o660, "debug")
    assert settings.api_url == "https://api.bits.bi:444"


def test_settings_can_not_be_changed() -> None:
    settings = loaded().settings
    with pytest.raises(ValidationError):
        settings.scope = "other"  # type: ignore[misc] # what mypy forbids must fail at run time too
    with pytest.raises(ValidationError):
        settings.upstream.max_age = 1  # type: ignore[misc] # as above


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("BITS_API_URL", "ftp://x"),
        ("BITS_API_URL", "https://u:p@x"),
        ("BITS_API_URL", "https://x/v1"),
        ("BITS_API_URL", "https://x?q"),
        ("BITS_API_URL", "https://x:99999"),
        ("BITS_LISTEN", ":8080"),
        ("BITS_LISTEN", ","),
        ("BITS_ADMIN_LISTEN", "nowhere"),
        ("BITS_SOCKET_MODE", "999"),
        ("BITS_LOG_LEVEL", "loud"),
        ("BITS_LOG_FORMAT", "xml"),
        ("BITS_ACCESS_LOG", "some"),
        ("BITS_CLIENT_AUTHORIZATION", "drop"),
        ("BITS_ALLOW", "FETCH /v1"),
        ("BITS_ALLOW", "POST v1"),
        ("BITS_TOKEN_WAIT", "0"),
        ("BITS_TOKEN_WAIT", "inf"),
        ("BITS_MAX_BODY_BYTES", "-1"),
        ("BITS_UPSTREAM__MAX_CONNECTIONS", "many"),
        ("BITS_LIMITS__FIELDS", "0"),
        ("BITS_CLIENT_ID_FILE", "/no/such/file"),
        ("BITS_CREDENTIALS_DIR", "/no/such/directory"),
        ("BITS_UPSTREAM__CA_FILE", "/no/such/file"),
        ("BITS_TOKEN_URL", "http://auth.example/token"),
        ("BITS_API_URL", "http://api.example"),
    ],
)
def test_a_wrong_value_is_one_fault_that_names_its_variable(variable: str, value: str) -> None:
    found = faults({variable: value})
    assert len(found) == 1
    assert found[0].startswith(f"{variable}: ")
    if value.startswith("/no"):
        assert value in found[0]


def test_a_fault_from_a_file_or_a_flag_says_so(tmp_path: Path) -> None:
    toml = tmp_path / "bits.toml"
    toml.write_text("[limits]\nhead = 1\n")
    found = faults({}, config_file=toml, flags={"upstream.max_age": "old"})
    assert any("BITS_LIMITS__HEAD: " in each and str(toml) in each for each in found)
    assert any("BITS_UPSTREAM__MAX_AGE: " in each and "--upstream-max-age" in each for each in found)


def test_all_faults_are_listed_at_once() -> None:
    wrong = {
        "BITS_LOG_LEVEL": "loud",
        "BITS_LIMITS__HEAD": "x",
        "BITS_LISTEN": "*:1",
        "BITS_UPSTREAM__CLIENT_KEY": __file__,
        "BITS_CLIENT_SECRET_FILE": "/no/such/file",
    }
    found = faults(wrong, required=True)
    assert {each.partition(":")[0] for each in found} == {*wrong, "BITS_CLIENT_ID"}
    assert len(found) == 6


def test_an_insecure_url_is_allowed_on_loopback_or_on_demand() -> None:
    assert loaded({"BITS_API_URL": "http://localhost:1"}).settings.api_url == "http://localhost:1"
    assert loaded({"BITS_API_URL": "http://[::1]:1"}).settings.api_url == "http://[::1]:1"
    far = {"BITS_API_URL": "http://api.example", "BITS_ALLOW_INSECURE_HTTP": "true"}
    assert loaded(far).settings.allow_insecure_http
    assert "BITS_ALLOW_INSECURE_HTTP" in faults({"BITS_API_URL": "http://api.example"})[0]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("BITS_CLIENT_ID", "BITS_CLIENT_ID_FILE"),
        ("BITS_CLIENT_SECRET", "BITS_CLIENT_SECRET_FILE"),
        ("BITS_CREDENTIALS_DIR", "BITS_CLIENT_ID"),
        ("BITS_CREDENTIALS_DIR", "BITS_CLIENT_SECRET_FILE"),
    ],
)
def test_two_places_for_one_thing_are_a_fault_that_names_both(tmp_path: Path, one: str, other: str) -> None:
    file = tmp_path / "file"
    file.write_text("x")

    def value(name: str) -> str:
        return str(file) if name.endswith("FILE") else str(tmp_path) if name.endswith("DIR") else SECRET

    found = faults({one: value(one), other: value(other)})
    assert len(found) == 1
    assert one in found[0]
    assert other in found[0]
    assert SECRET not in found[0]


def test_credentials_are_missed_only_where_they_are_required() -> None:
    assert [each.partition(":")[0] for each in faults({}, required=True)] == [
        "BITS_CLIENT_ID",
        "BITS_CLIENT_SECRET",
    ]
    assert loaded().settings.client_id is None
    assert load(environ=PAIR, env_file=None, credentials_required=True).settings.client_id == "acme"


def test_files_that_can_not_be_read_are_faults(tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.write_bytes(b"\xff = ")
    broken = tmp_path / "broken.toml"
    broken.write_text(f'client_secret = "{SECRET}" "\n')
    assert str(bad) in faults({}, config_file=bad)[0]
    assert str(bad) in faults({}, env_file=bad)[0]
    assert "/no/such" in faults({"BITS_CONFIG": "/no/such"})[0]
    [fault] = faults({}, config_file=broken)
    assert str(broken) in fault
    assert SECRET not in fault


def test_unknown_keys_of_the_file_are_faults_with_the_nearest_name(tmp_path: Path) -> None:
    toml = tmp_path / "bits.toml"
    toml.write_text("[upstream]\nmax_conections = 1\n")
    [fault] = faults({}, config_file=toml)
    assert "upstream.max_conections" in fault
    assert "upstream.max_connections" in fault


def test_unknown_variables_are_warnings_with_the_nearest_name(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("BITS_SCOPES=x\n")
    warnings = loaded({"BITS_CLIENT_SECRT": SECRET}, env_file=dotenv).warnings
    assert len(warnings) == 2
    assert any("BITS_CLIENT_SECRT" in each and "BITS_CLIENT_SECRET?" in each for each in warnings)
    assert any("BITS_SCOPES" in each and "BITS_SCOPE " in f"{each.replace('?', ' ')} " for each in warnings)
    assert SECRET not in "".join(warnings)


@pytest.mark.parametrize("where", [".env", "bits.toml"])
@pytest.mark.parametrize("mode", [0o644, 0o640])
def test_settings_files_with_a_secret_that_everybody_may_read_are_named(
    tmp_path: Path, where: str, mode: int
) -> None:
    holder, other = tmp_path / where, tmp_path / "other"
    holder.write_text("BITS_CLIENT_SECRET=s3cret\n" if where == ".env" else 'client_secret = "s3cret"\n')
    other.write_text("")
    files = (holder, other) if where == ".env" else (other, holder)
    for path in files:
        path.chmod(mode)
    result = load(environ={}, env_file=files[0], config_file=str(files[1]), credentials_required=False)
    assert result.exposed == ((holder,) if mode == 0o644 else ())


def test_a_private_key_that_everybody_may_read_is_named(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    for path in (cert, key):
        path.write_text("")
        path.chmod(0o644)
    environ = {"BITS_UPSTREAM__CLIENT_CERT": str(cert), "BITS_UPSTREAM__CLIENT_KEY": str(key)}
    assert loaded(environ).exposed == (key,)
    del environ["BITS_UPSTREAM__CLIENT_KEY"]
    assert loaded(environ).exposed == (cert,)
    listener = {"BITS_LISTEN_TLS__CERT": str(cert), "BITS_LISTEN_TLS__KEY": str(key)}
    assert loaded(listener).exposed == (key,)
    key.chmod(0o640)
    assert loaded(listener).exposed == ()


@pytest.mark.parametrize(
    ("variable", "value", "exposes"),
    [
        ("BITS_HTTPS_PROXY", "http://user:pass@egress.example:3128", True),
        ("BITS_HTTPS_PROXY", "http://egress.example:3128", False),
        ("BITS_EMULATOR__CLIENT_SECRET", "s3cret", True),
        ("BITS_SCOPE", "application", False),
    ],
)
@pytest.mark.parametrize("where", [".env", "bits.toml"])
def test_every_secret_in_a_settings_file_counts(
    tmp_path: Path, where: str, variable: str, value: str, *, exposes: bool
) -> None:
    holder = tmp_path / where
    if where == ".env":
        holder.write_text(f"{variable}={value}\n")
    else:
        group, _, name = variable.removeprefix("BITS_").lower().rpartition("__")
        holder.write_text((f"[{group}]\n" if group else "") + f'{name} = "{value}"\n')
    holder.chmod(0o644)
    files = (holder, None) if where == ".env" else (None, str(holder))
    result = load(environ={}, env_file=files[0], config_file=files[1], credentials_required=False)
    assert result.exposed == ((holder,) if exposes else ())
    # A value that something else overrides stays in the file all the same.
    overriding = {variable: "http://other.example:1" if "PROXY" in variable else "other"}
    result = load(environ=overriding, env_file=files[0], config_file=files[1], credentials_required=False)
    assert result.exposed == ((holder,) if exposes else ())


def test_service_links_of_kubernetes_are_not_warned_of() -> None:
    links = ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_80_TCP", "PORT_80_TCP_ADDR")
    environ = {
        f"BITS_API_{link}": "tcp://10.0.0.1:80" for link in (*links, "PORT_53_UDP", "PORT_53_UDP_PROTO")
    }
    assert loaded(environ).warnings == ()


def test_a_secret_shows_in_no_fault_and_no_repr() -> None:
    settings = loaded(PAIR).settings
    assert settings.client_secret is not None
    assert settings.client_secret.get_secret_value() == SECRET
    assert SECRET not in f"{settings!r} {settings} {settings.model_dump()}"
    assert SECRET not in "".join(faults(PAIR | {"BITS_LOG_LEVEL": "loud"}))


def test_a_secret_of_the_wrong_type_does_not_show(tmp_path: Path) -> None:
    toml = tmp_path / "bits.toml"
    toml.write_text(f'client_secret = ["{SECRET}"]\n')
    [fault] = faults({}, config_file=toml)
    assert fault.startswith("BITS_CLIENT_SECRET: ")
    assert SECRET not in fault


def test_every_setting_is_described() -> None:
    assert [field.name for field in fields() if not field.info.description] == []


def test_a_line_of_the_env_file_that_is_none_is_a_fault(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("# a comment\nexport BITS_SCOPE='application'\nno assignment here\n", "utf-8")
    with pytest.raises(SettingsError) as caught:
        load(environ={}, env_file=env_file, credentials_required=False)
    assert caught.value.faults == [f"{env_file}: line 3 is not NAME=value"]
    with pytest.raises(SettingsError, match="can't be read"):
        load(environ={}, env_file=tmp_path, credentials_required=False)


def test_a_toml_file_is_told_what_a_table_and_an_address_are(tmp_path: Path) -> None:
    toml = tmp_path / "bits.toml"
    toml.write_text("upstream = 3\nlisten = [1]\n", "utf-8")
    with pytest.raises(SettingsError) as caught:
        load(environ={}, env_file=None, config_file=str(toml), credentials_required=False)
    assert any("write [upstream]" in fault for fault in caught.value.faults)
    assert any(fault.startswith("BITS_LISTEN: write host:port") for fault in caught.value.faults)


@pytest.mark.parametrize("variable", ["BITS_CLIENT_ID", "BITS_CLIENT_SECRET"])
def test_a_credential_with_a_line_break_is_a_fault_that_does_not_show_it(variable: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(environ={variable: "first\nsecond"}, env_file=None, credentials_required=False)
    assert [fault.partition(":")[0] for fault in caught.value.faults] == [variable]
    assert "second" not in str(caught.value)


def test_a_port_of_a_thousand_digits_is_a_fault_like_any() -> None:
    with pytest.raises(SettingsError, match="BITS_LISTEN: write host:port"):
        load(environ={"BITS_LISTEN": "127.0.0.1:" + "9" * 5000}, env_file=None, credentials_required=False)


@pytest.mark.parametrize(
    ("url", "no_proxy", "exempt"),
    [
        ("https://api.bits.bi", "", False),
        ("https://api.bits.bi", "*", True),
        ("https://api.bits.bi", "other.example,*", True),
        ("https://api.bits.bi", "api.bits.bi", True),
        ("https://API.bits.bi", "api.bits.bi", True),
        ("https://api.bits.bi", "other.example, .BITS.bi", True),
        ("https://api.bits.bi", "other.example .bits.bi", True),
        ("https://api.bits.bi", "bits.bi", True),
        ("https://bits.bi", ".bits.bi", True),
        ("https://api.bits.bi", "*.bits.bi", True),
        ("https://eu.api.bits.bi", "*.bits.bi", True),
        ("https://bits.bi", "*.bits.bi", False),
        ("https://rabbits.bi", "*.bits.bi", False),
        ("https://api.bits.bi", "its.bi", False),
        ("https://api.bits.bi", "*its.bi", False),
        ("https://api.bits.bi.", "api.bits.bi", True),
        ("https://api.bits.bi", "bits.bi.", True),
        ("https://api.bits.bi", "api.bits.bi:443", True),
        ("https://api.bits.bi:8443", "api.bits.bi:443", False),
        ("https://api.bits.bi:8443", "api.bits.bi:8443", True),
        ("https://api.bits.bi:8443", ".bits.bi:8443", True),
        ("https://api.bits.bi:8443", "*.bits.bi:443", False),
        ("https://api.bits.bi", "api.bits.bi:x", False),
        ("https://api.bits.bi", ":443", False),
        ("https://api.bits.bi", ".", False),
        ("https://api.bits.bi", "*.", False),
        ("https://10.1.2.3", "10.0.0.0/8", True),
        ("https://10.1.2.3", "192.168.0.0/16,10.1.2.3", True),
        ("https://10.1.2.3:8443", "10.1.2.3:8443", True),
        ("https://10.1.2.3", "10.1.2.3:8443", False),
        ("https://11.1.2.3", "10.0.0.0/8", False),
        ("https://11.1.2.3", "2.3", False),
        ("https://[fd00::7]", "fd00::/8", True),
        ("https://[fd00::7]", "[fd00::]/8", False),
        ("https://[fd00::7]", "fd00:0::7", True),
        ("https://[fd00::7]", "[fd00::7]", True),
        ("https://[fd00::7]:8443", "[fd00::7]:8443", True),
        ("https://[fd00::7]:8443", "[fd00::7]:443", False),
        ("https://[fe80::7]", "fd00::/8,10.0.0.0/8", False),
    ],
)
def test_no_proxy_names_hosts_ports_domains_and_networks(url: str, no_proxy: str, exempt: bool) -> None:
    assert is_exempt(url, no_proxy) is exempt


def test_the_customary_variables_of_an_egress_proxy_yield_to_our_own() -> None:
    api = "https://api.bits.bi/v1"
    machine = {"HTTPS_PROXY": "http://u:hidden-pw@proxy:3128", "NO_PROXY": "internal.example"}
    settings = loaded(machine).settings
    assert settings.proxy_for(api) == "http://u:hidden-pw@proxy:3128"
    assert settings.proxy_for("https://a.internal.example/x") is None
    assert settings.proxy_for("http://127.0.0.1:1") is None
    assert "hidden-pw" not in repr(settings)
    own = loaded({**machine, "BITS_HTTPS_PROXY": "http://mine:1", "BITS_NO_PROXY": "api.bits.bi"}).settings
    assert own.proxy_for(api) is None
    assert own.proxy_for("https://auth.example/") == "http://mine:1"


@pytest.mark.parametrize(
    "value", ["proxy.corp:3128", "u:hidden-pw@proxy.corp:3128", "[fd00::1]:3128", "proxy.corp"]
)
@pytest.mark.parametrize("variable", ["BITS_HTTPS_PROXY", "HTTPS_PROXY", "https_proxy"])
def test_a_proxy_without_a_scheme_is_http(variable: str, value: str) -> None:
    assert loaded({variable: value}).settings.proxy_for("https://api.bits.bi") == f"http://{value}"


UNUSABLE = [
    "socks5://u:hidden-pw@proxy",
    "https://u:hidden-pw@proxy:3128",
    "http://u:hidden#pw@proxy:3128",
    "http://",
    "http://proxy:99999",
    "http://u%3Av:hidden-pw@proxy:3128",
    "http://u:hidden%0Apw@proxy:3128",
    "proxy:port",
    "proxy corp:3128",
]


@pytest.mark.parametrize("value", UNUSABLE)
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy"])
def test_an_unusable_proxy_of_the_machine_is_a_fault_that_names_its_variable_and_does_not_show_it(
    variable: str, value: str
) -> None:
    for api in ({}, {"BITS_API_URL": "http://localhost:1", "BITS_TOKEN_URL": "https://tokens.example/"}):
        (fault,) = faults({variable: value, **api})
        assert fault.startswith(f"{variable}: write http://host:port")
        assert "NO_PROXY" in fault
        assert "hidden" not in fault


@pytest.mark.parametrize("value", UNUSABLE)
def test_an_unusable_proxy_of_the_machine_does_not_matter_where_it_is_not_used(value: str) -> None:
    machine = {"HTTPS_PROXY": value}
    for unaffected in (
        {"NO_PROXY": "api.bits.bi:443"},
        {"BITS_NO_PROXY": "*.bits.bi"},
        {"BITS_API_URL": "http://localhost:1"},
        {"BITS_HTTPS_PROXY": "http://mine:1"},
    ):
        settings = loaded({**machine, **unaffected}).settings
        expected = unaffected.get("BITS_HTTPS_PROXY")
        assert settings.proxy_for("https://api.bits.bi") == expected
    result = load(environ=machine, env_file=None, credentials_required=False, calls_api=False)
    assert result.settings.https_proxy is None
    assert "https_proxy" not in result.origins


@pytest.mark.parametrize("value", UNUSABLE)
def test_our_own_variable_with_an_unusable_proxy_is_a_fault_wherever_it_leads(value: str) -> None:
    for more in (
        {},
        {"NO_PROXY": "*"},
        {"BITS_API_URL": "http://localhost:1"},
        {"HTTPS_PROXY": "http://fine:1"},
    ):
        (fault,) = faults({"BITS_HTTPS_PROXY": value, **more})
        assert fault.startswith("BITS_HTTPS_PROXY: write http://host:port")
        assert "hidden" not in fault


def test_a_host_of_dots_is_no_host() -> None:
    for url in ("https://.", "https://api..bits.bi", "https://api.bits.bi..", "https://.bits.bi"):
        assert faults({"BITS_API_URL": url}) == ["BITS_API_URL: write a URL like https://api.bits.bi"]
    assert loaded({"BITS_API_URL": "https://api.bits.bi."}).settings.api_url == "https://api.bits.bi."


def test_settings_files_of_other_systems_are_read_or_named(tmp_path: Path) -> None:
    dotenv, toml = tmp_path / ".env", tmp_path / "bits.toml"
    dotenv.write_text("BITS_CLIENT_ID=acme\r\nBITS_SCOPE=application\r\n", "utf-8-sig")
    toml.write_text('log_level = "error"\r\n', "utf-8-sig")
    settings = loaded(env_file=dotenv, config_file=toml).settings
    assert (settings.client_id, settings.scope, settings.log_level) == ("acme", "application", "error")
    for path in (dotenv, toml):
        path.write_text(path.read_text("utf-8-sig"), "utf-16")
    assert len(faults({}, env_file=dotenv, config_file=toml)) == 2
    assert all("UTF-16" in fault for fault in faults({}, env_file=dotenv, config_file=toml))
    assert faults(PAIR | {"BITS_CLIENT_SECRET": "\ufeffx"}) == [
        "BITS_CLIENT_SECRET: contains a byte order mark"
    ]


def test_slips_are_listed_beside_faults() -> None:
    with pytest.raises(SettingsError) as caught:
        load(environ={"BITS_CLIENT_SECERT": SECRET}, env_file=None, credentials_required=True)
    assert len(caught.value.faults) == 2
    [warning] = caught.value.warnings
    assert warning.endswith("did you mean BITS_CLIENT_SECRET?")
