"""Environment variables: which names may be set, and which values can be.

The base of what is refused are the lists that sudo and glibc publish of variables that are unsafe
to take from somebody else, as of 2026: sudo's plugins/sudoers/env.c (`initial_badenv_table` and
`initial_checkenv_table`), glibc's sysdeps/generic/unsecvars.h and ld.so(8) ("secure-execution
mode"). The other names are from the manuals of the programs that read them.
"""

from __future__ import annotations

import re

from pydantic import SecretStr

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_WHERE = "set it where the worker or the container gets its variables"
# Why names are refused, and which; one `*` stands for any characters. Cases are not told apart, as
# on Windows, and because some programs read http_proxy.
_REFUSED = {
    "changes how programs start: a secret is never put there": """
        LD_* LDR_* _RLD* DYLD_* LIBPATH SHLIB_PATH AUTHSTATE
        GCONV_PATH GETCONF_DIR GLIBC_TUNABLES MALLOC_* NIS_PATH NLSPATH LOCPATH MUSL_LOCPATH
        PATH_LOCALE TERM TERMCAP TERMINFO TERMINFO_DIRS TERMPATH COLORTERM
        TZ TZDIR LANG LANGUAGE LC_* LINGUAS
        OPENSSL_CONF OPENSSL_CONF_INCLUDE OPENSSL_ENGINES OPENSSL_MODULES
        KRB5_CONFIG* KRB5_KTNAME VAR_ACE USR_ACE DLC_ACE
        PATH PATHEXT COMSPEC SYSTEMROOT WINDIR HOME USERPROFILE APPDATA LOCALAPPDATA PROGRAMDATA
        XDG_* TMPDIR TMP TEMP TMPPREFIX
        SHELL IFS CDPATH ENV BASH_ENV BASHOPTS SHELLOPTS PS4 PROMPT_COMMAND GLOBIGNORE FPATH
        NULLCMD READNULLCMD ZDOTDIR
        PYTHON* PYSPARK_* VIRTUAL_ENV CONDARC CONDA_EXE CONDA_PREFIX
        PERL* RUBYOPT RUBYLIB RUBYSHELL RUBYGEMS_GEMDEPS GEM_HOME GEM_PATH BUNDLE_GEMFILE
        NODE_OPTIONS NODE_PATH NODE_REPL_EXTERNAL_MODULE NODE_ICU_DATA
        JAVA_HOME JAVA_OPTS JAVA_TOOL_OPTIONS _JAVA_OPTIONS JDK_JAVA_OPTIONS CLASSPATH
        MAVEN_OPTS MAVEN_ARGS GRADLE_OPTS SPARK_HOME SPARK_CONF_DIR SPARK_*_OPTS
        HADOOP_HOME HADOOP_CONF_DIR HADOOP_CLASSPATH HADOOP_*OPTS
        IPYTHONDIR JUPYTER_CONFIG_DIR JUPYTER_CONFIG_PATH JUPYTER_PATH CUDA_INJECTION64_PATH
        OMPI_MCA_* PMIX_MCA_* TORCH_HOME HF_MODULES_CACHE
        R_HOME R_LIBS* R_PROFILE* R_ENVIRON* PHPRC PHP_INI_SCAN_DIR LUA_PATH* LUA_CPATH* LUA_INIT*
        JULIA_LOAD_PATH JULIA_DEPOT_PATH JULIA_PROJECT DOTNET_STARTUP_HOOKS CORECLR_* COR_*
        GIT_ASKPASS GIT_CONFIG* GIT_DIR GIT_COMMON_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_EDITOR
        GIT_SEQUENCE_EDITOR GIT_EXEC_PATH GIT_EXTERNAL_DIFF GIT_PAGER GIT_*_COMMAND GIT_SSH
        GIT_SSH_VARIANT GIT_TEMPLATE_DIR GIT_TRACE* GIT_ALLOW_PROTOCOL GIT_OBJECT_DIRECTORY
        GIT_ALTERNATE_OBJECT_DIRECTORIES
        SSH_ASKPASS* SSH_AUTH_SOCK SSH_SK_PROVIDER SUDO_ASKPASS SUDO_EDITOR SVN_SSH CVS_RSH
        RSYNC_RSH RSYNC_CONNECT_PROG HGRCPATH
        EDITOR VISUAL FCEDIT PAGER MANPAGER LESS LESSOPEN LESSCLOSE BROWSER TAR_OPTIONS
        CPATH C_INCLUDE_PATH CPLUS_INCLUDE_PATH LIBRARY_PATH PKG_CONFIG_PATH
        MAKEFLAGS GNUMAKEFLAGS CC CXX CFLAGS CPPFLAGS CXXFLAGS LDFLAGS RUSTC* RUSTFLAGS CARGO_HOME
        GOFLAGS GOROOT GOPATH GOTOOLCHAIN
        AWS_CONFIG_FILE AWS_SHARED_CREDENTIALS_FILE GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES
        CLOUDSDK_CONFIG CLOUDSDK_PYTHON* KUBE_EDITOR KUBECONFIG DOCKER_CONFIG DOCKER_HOST
        CURL_HOME WGETRC NETRC GNUPGHOME
        PREFECT_* MLAUTH_*
    """,
    f"changes whom TLS trusts: {_WHERE}": """
        SSL_CERT_FILE SSL_CERT_DIR SSLKEYLOGFILE REQUESTS_CA_BUNDLE CURL_CA_BUNDLE AWS_CA_BUNDLE
        NODE_EXTRA_CA_CERTS NODE_TLS_REJECT_UNAUTHORIZED GIT_SSL_* GIT_PROXY_SSL_*
        HTTPLIB2_CA_CERTS GRPC_DEFAULT_SSL_ROOTS_FILE_PATH WEBSOCKET_CLIENT_CA_BUNDLE
        PGSSLMODE PGSSLROOTCERT MLFLOW_TRACKING_INSECURE_TLS MLFLOW_TRACKING_SERVER_CERT_PATH
        AZURE_CLI_DISABLE_CONNECTION_VERIFICATION
    """,
    f"changes where requests go: {_WHERE}": """
        *_PROXY HOSTALIASES LOCALDOMAIN RES_OPTIONS RESOLV_HOST_CONF
    """,
    f"changes where code is installed from: {_WHERE}": """
        PIP_* UV_* PIPENV_PYPI_MIRROR PDM_PYPI_URL POETRY_REPOSITORIES_* CONDA_CHANNELS
        NPM_CONFIG_* YARN_REGISTRY YARN_NPM_REGISTRY_SERVER GOPROXY GOSUMDB GONOSUMDB GOINSECURE
    """,
    f"changes who is asked for a credential: {_WHERE}": """
        AZURE_AUTHORITY_HOST AZURE_POD_IDENTITY_AUTHORITY_HOST AZURE_REGIONAL_AUTHORITY_NAME
        MSAL_FORCE_REGION AZURE_TOKEN_CREDENTIALS AZURE_CONFIG_DIR AZURE_EXTENSION_*
        AZURE_CLOUD_NAME ARM_CLOUD_METADATA_URL
        IDENTITY_ENDPOINT IMDS_ENDPOINT MSI_ENDPOINT GCE_METADATA_*
        AWS_EC2_METADATA_SERVICE_ENDPOINT* AWS_CONTAINER_CREDENTIALS_*
        KUBERNETES_SERVICE_HOST KUBERNETES_SERVICE_PORT
    """,
    "belongs to ZenML, whose client would write the key to its disk: use zenml_login or the "
    "profile's [zenml]": """
        ZENML_STORE_* ZENML_CONFIG_PATH DISABLE_CREDENTIALS_DISK_CACHING
    """,
    "belongs to ZenML: use zenml_login or the profile's [zenml]; a setting that is no secret is "
    "set where the worker or the container gets its variables": "ZENML_*",
}
# What installers send to the places that others chose (UV_INDEX_TEAM_PASSWORD, UV_PUBLISH_TOKEN).
_OF_INSTALLERS = re.compile(
    r"(PIP|UV|NPM_CONFIG)_(\w*_)?(TOKEN|PASSWORD|USERNAME)\Z", re.IGNORECASE
)
# One entry `NAME=value` of 131,072 bytes makes the next exec fail with E2BIG.
_MOST_BYTES = 131_072


def name_problem(name: str) -> str | None:
    """Say why a secret may not be exported under a name, or return None."""
    if not _NAME.match(name):
        return "is not the name of a variable (letters, digits and '_')"
    if _OF_INSTALLERS.match(name):
        return None
    return next((why for why, names in _REFUSED.items() if _is_one_of(name.upper(), names)), None)


def value_problem(name: str, value: SecretStr) -> str | None:
    """Say why a value cannot be that of a variable, without showing it, or return None."""
    if "\0" in value.get_secret_value():
        return "has a NUL character, which no environment variable can hold: hand it over as a file"
    if value.get_secret_value().startswith("() {"):  # sudo's `*=()*`
        return (
            "starts as a function of the shell, which old shells would run: hand it over as a file"
        )
    try:
        size = len(f"{name}={value.get_secret_value()}".encode())
    except UnicodeEncodeError:
        return "is not UTF-8, which an environment variable must be here: store it as base64"
    if size >= _MOST_BYTES:
        return (
            f"is too long for an environment variable ({size:,} bytes with its name, of "
            f"{_MOST_BYTES - 1:,} at most): hand it over as a file"
        )
    return None


def _is_one_of(name: str, patterns: str) -> bool:
    for pattern in patterns.split():
        head, star, tail = pattern.partition("*")
        if name == pattern or (
            star
            and name.startswith(head)
            and name.endswith(tail)
            and len(name) >= len(head) + len(tail)
        ):
            return True
    return False
