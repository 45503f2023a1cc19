from __future__ import annotations

import os
import subprocess
import sys

import pytest
from pydantic import SecretStr

from mlauth.variables import name_problem, value_problem


@pytest.mark.parametrize(
    "name",
    "HF_TOKEN _x PYTORCH_TOKEN PATHS LDAP_PASSWORD AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY"
    " AWS_SESSION_TOKEN AWS_ENDPOINT_URL AZURE_CLIENT_SECRET AZURE_TENANT_ID AZURE_CLIENT_ID"
    " AZURE_STORAGE_CONNECTION_STRING GOOGLE_APPLICATION_CREDENTIALS DATABASE_URL PGPASSWORD"
    " GITHUB_TOKEN GH_TOKEN GIT_TOKEN GIT_SSH_KEY GITLAB_TOKEN NPM_TOKEN NODE_AUTH_TOKEN"
    " MLFLOW_TRACKING_URI MLFLOW_TRACKING_USERNAME MLFLOW_TRACKING_PASSWORD WANDB_API_KEY"
    " OPENAI_API_KEY DATABRICKS_TOKEN DOCKER_PASSWORD DOCKER_AUTH_CONFIG SLACK_WEBHOOK_URL"
    " UV_INDEX_TEAM_USERNAME UV_INDEX_TEAM_PASSWORD UV_PUBLISH_TOKEN PIP_PASSWORD"
    " POETRY_HTTP_BASIC_TEAM_PASSWORD POETRY_PYPI_TOKEN_TEAM CARGO_REGISTRY_TOKEN GEM_HOST_API_KEY"
    " BUNDLE_GITHUB__COM SSH_PRIVATE_KEY SSL_KEY_PASSWORD TLS_KEY PROXY_PASSWORD".split(),
)
def test_names_of_ordinary_secrets_are_allowed(name: str) -> None:
    assert name_problem(name) is None


# What sudo (initial_badenv_table, initial_checkenv_table) and glibc (unsecvars.h, ld.so(8))
# publish, each `*` filled in; sudo's `*=()*` is about the value.
_OF_SUDO = """
    IFS CDPATH LOCALDOMAIN RES_OPTIONS HOSTALIASES NLSPATH PATH_LOCALE LD_X _RLD_LIST SHLIB_PATH
    LDR_X LIBPATH AUTHSTATE DYLD_X KRB5_CONFIG KRB5_CONFIG_X KRB5_KTNAME VAR_ACE USR_ACE DLC_ACE
    TERMINFO TERMINFO_DIRS TERMPATH TERMCAP ENV BASH_ENV PS4 GLOBIGNORE BASHOPTS SHELLOPTS
    JAVA_TOOL_OPTIONS _JAVA_OPTIONS CLASSPATH PERLIO_DEBUG PERLLIB PERL5LIB PERL5OPT PERL5DB FPATH
    NULLCMD READNULLCMD ZDOTDIR TMPPREFIX PYTHONHOME PYTHONPATH PYTHONINSPECT PYTHONUSERBASE
    PYTHONSTARTUP RUBYLIB RUBYOPT NODE_OPTIONS NODE_PATH GIT_SSH_COMMAND GIT_CONFIG_GLOBAL
    GIT_CONFIG_KEY_0 GCONV_PATH COLORTERM LANG LANGUAGE LC_ALL LINGUAS TERM TZ
"""
_OF_GLIBC = """
    GCONV_PATH GETCONF_DIR GLIBC_TUNABLES HOSTALIASES LD_AUDIT LD_BIND_NOT LD_DEBUG
    LD_DEBUG_OUTPUT LD_DYNAMIC_WEAK LD_HWCAP_MASK LD_LIBRARY_PATH LD_ORIGIN_PATH LD_PRELOAD
    LD_PREFER_MAP_32BIT_EXEC LD_PROFILE LD_PROFILE_OUTPUT LD_SHOW_AUXV LOCALDOMAIN LOCPATH
    MALLOC_TRACE MALLOC_CHECK_ NIS_PATH NLSPATH RESOLV_HOST_CONF RES_OPTIONS TMPDIR TZDIR
"""


@pytest.mark.parametrize("name", sorted({*_OF_SUDO.split(), *_OF_GLIBC.split()}))
def test_what_sudo_and_glibc_call_unsafe_is_refused(name: str) -> None:
    for spelling in (name, name.lower()):
        assert "changes " in (name_problem(spelling) or "")


@pytest.mark.parametrize(
    ("why", "names"),
    {
        "changes how programs start: a secret is never put there": (
            "PATH HOME LD_PRELOAD PYTHONPATH PREFECT_API_URL DYLD_INSERT_LIBRARIES path"
            " pythonpath BASH_ENV MLAUTH_PROFILE OPENSSL_CONF JDK_JAVA_OPTIONS GIT_ASKPASS"
            " GIT_EXEC_PATH GIT_SSH GIT_PROXY_COMMAND GIT_CONFIG_COUNT EDITOR PAGER LESSOPEN"
            " MAKEFLAGS CC R_PROFILE_USER AWS_CONFIG_FILE KUBECONFIG NETRC XDG_CONFIG_HOME"
        ),
        "changes whom TLS trusts: set it where": (
            "REQUESTS_CA_BUNDLE CURL_CA_BUNDLE SSL_CERT_FILE ssl_cert_dir SSLKEYLOGFILE"
            " NODE_EXTRA_CA_CERTS GIT_SSL_NO_VERIFY GIT_SSL_CAINFO AWS_CA_BUNDLE"
            " AZURE_CLI_DISABLE_CONNECTION_VERIFICATION"
        ),
        "changes where requests go: set it where": (
            "HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY http_proxy Https_Proxy RSYNC_PROXY"
            " HOSTALIASES"
        ),
        "changes where code is installed from: set it where": (
            "PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST UV_INDEX UV_DEFAULT_INDEX"
            " UV_INDEX_URL UV_FIND_LINKS UV_PUBLISH_URL NPM_CONFIG_REGISTRY GOPROXY"
        ),
        "changes who is asked for a credential: set it where": (
            "AZURE_AUTHORITY_HOST IDENTITY_ENDPOINT MSI_ENDPOINT IMDS_ENDPOINT MSAL_FORCE_REGION"
            " AZURE_EXTENSION_DEV_SOURCES AZURE_CLOUD_NAME ARM_CLOUD_METADATA_URL"
            " GCE_METADATA_HOST AWS_CONTAINER_CREDENTIALS_FULL_URI"
        ),
        "changes what clients keep on the disk: set it where": "DISABLE_CREDENTIALS_DISK_CACHING",
    }.items(),
)
def test_names_that_change_what_others_do_are_refused(why: str, names: str) -> None:
    for name in names.split():
        assert (name_problem(name) or "").startswith(why), name


@pytest.mark.parametrize("name", ["", "A B", "A=B", "1A", "A\n", "Ä"])
def test_what_is_no_name_is_refused(name: str) -> None:
    assert "is not the name of a variable" in (name_problem(name) or "")


@pytest.mark.parametrize("value", ["", "a", "two\nlines", "ü€", "\ufeffbom", "a" * 100_000])
def test_ordinary_values_are_allowed(value: str) -> None:
    assert value_problem("NAME", SecretStr(value)) is None


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("a\0b", "NUL"),
        ("canary\udcff", "not UTF-8"),
        ("() { :; }; canary", "function"),
        ("canary" * 30_000, "180,005 bytes"),
    ],
)
def test_a_value_that_no_variable_can_hold_is_refused_and_not_cut(value: str, why: str) -> None:
    problem = value_problem("NAME", SecretStr(value))
    assert problem is not None
    assert why in problem
    assert "canary" not in problem


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
@pytest.mark.parametrize("more", [0, 1])
def test_the_limit_is_the_one_that_the_kernel_has(more: int) -> None:
    value = "a" * (131_071 - len("NAME=") + more)
    environment = {**os.environ, "NAME": value}
    if value_problem("NAME", SecretStr(value)) is None:
        assert subprocess.run(["true"], env=environment).returncode == 0
    else:
        with pytest.raises(OSError, match="Argument list too long"):
            subprocess.run(["true"], env=environment)
    assert (value_problem("NAME", SecretStr(value)) is None) is (more == 0)
