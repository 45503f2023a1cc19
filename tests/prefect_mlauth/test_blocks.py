"""Blocks are made, registered, saved and loaded, but never with a secret in them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import re
import subprocess
import sys
import threading
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites.blocks import HAS_PIL, BlockStandardTestSuite

import prefect_mlauth
from mlauth import Status, systems
from mlauth.errors import CheckFailed, InvalidBlock, InvalidProfile
from mlauth.stores import memory
from prefect_mlauth import (
    AzureKeyVaultSecret,
    MLAuthProfile,
    ReferencedSecret,
    ZenMLCredentials,
    logins,
)
from tests.prefect_mlauth.conftest import Project, block_documents
from tests.support.accounts import Account, new_account
from tests.support.connect_proxy import connect_proxy
from tests.support.profiles import write_profile
from tests.support.published import DOCS, HOST, URLS, published
from tests.support.search import search
from tests.support.servers import PrefectServer

URL = "https://zenml.example.com"
REFERENCE = "env://NOWHERE"
SYSTEMS = [each for each in systems._OURS if logins.is_known(each)]
LOGINS = [getattr(prefect_mlauth, logins.block_name(each)) for each in SYSTEMS]
ALL = [AzureKeyVaultSecret, MLAuthProfile, ReferencedSecret, *LOGINS]


def new_name() -> str:
    return f"block-{uuid.uuid4().hex[:8]}"


class TestTheBlockStandards(BlockStandardTestSuite):
    """Prefect's own suite; it fetches the logo."""

    @pytest.fixture(params=ALL)
    def block(self, request: pytest.FixtureRequest) -> type[Block]:
        return request.param  # type: ignore[no-any-return]

    @pytest.fixture(autouse=True)
    def _logo_where_it_will_be(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[None]:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        monkeypatch.setattr(urllib.request, "_opener", None)  # it would keep an earlier proxy
        with (
            published(authority) as port,
            connect_proxy({HOST: port}, lambda host: True) as proxy,
        ):
            monkeypatch.setenv("https_proxy", proxy.url)
            yield

    def test_nothing_of_the_suite_is_left_out(self) -> None:
        assert HAS_PIL

    def test_the_documentation_is_a_page_that_is_there(self, block: type[Block]) -> None:
        place, _, page = str(block._documentation_url).rpartition("/")
        assert place == URLS["Documentation"]
        assert (DOCS / page).is_file()

    def test_its_addresses_are_those_of_the_project_and_nobody_can_register_them(
        self, block: type[Block]
    ) -> None:
        assert str(block._logo_url) == URLS["Logo"]
        assert all(urlsplit(url).netloc == "mlauth.example.com" for url in URLS.values())

    def test_every_field_has_a_title_of_its_own(self, block: type[Block]) -> None:
        assert all(field.title for field in block.model_fields.values())

    def test_the_form_holds_no_field_that_prefect_would_hide(self, block: type[Block]) -> None:
        """The form shows references, so a reader sees where the secret lives."""
        assert block.model_json_schema()["secret_fields"] == []


def test_the_blocks_names_are_those_that_the_catalogue_shows(
    prefect_server: PrefectServer, registered_blocks: str
) -> None:
    assert f"Successfully registered {len(ALL)} blocks" in registered_blocks
    for block in ALL:
        slug = block.get_block_type_slug()
        shown = prefect_server.request("GET", f"/block_types/slug/{slug}")
        assert shown["name"] == block.get_block_type_name()
        assert shown["logo_url"].endswith("/docs/logo.png")
        assert shown["documentation_url"].endswith("/docs/blocks.md")
        assert f"import {block.__name__}" in shown["code_example"]
    assert {block.get_block_type_slug() for block in ALL} >= {
        "azure-key-vault-secret",
        "mlauth-profile",
        "referenced-secret",
        "zenml-credentials",
    }


def test_the_form_says_beforehand_that_only_references_belong_there(
    prefect_server: PrefectServer, registered_blocks: str
) -> None:
    for slug, field in (
        ("zenml-credentials", "api_key"),
        ("mlauth-profile", "content"),
        ("azure-key-vault-secret", "name"),
        ("referenced-secret", "reference"),
    ):
        schema, _ = ids_of(prefect_server, slug)
        said = schema["fields"]["properties"][field]["description"]
        assert "Never" in said or "never" in said
        assert "would have to be rotated" in said


def ids_of(server: PrefectServer, slug: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the newest schema and the type of a block that is registered."""
    block_type = server.request("GET", f"/block_types/slug/{slug}")
    body = {"block_schemas": {"block_type_id": {"any_": [block_type["id"]]}}}
    return server.request("POST", "/block_schemas/filter", body)[0], block_type


def test_prefect_finds_the_blocks_as_a_collection() -> None:
    (found,) = entry_points(group="prefect.collections", name="prefect_mlauth")
    assert sorted(found.load().NAMES) == sorted(block.__name__ for block in ALL)
    for block in ALL:
        assert Block.get_block_class_from_key(block.get_block_type_slug()) is block


def test_a_block_is_loaded_by_its_slug_where_nothing_of_ours_is_imported(
    prefect_api: PrefectServer,
) -> None:
    name = new_name()
    ZenMLCredentials(store_url=URL, api_key=REFERENCE).save(name)
    code = (
        "import sys; from prefect.blocks.core import Block\n"
        "assert not any(name.startswith('prefect_mlauth') for name in sys.modules)\n"
        f"print(type(Block.load('zenml-credentials/{name}')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=prefect_api.environment(),
        timeout=100,
    )
    assert "prefect_mlauth.blocks.ZenMLCredentials" in done.stdout, done.stderr


@pytest.mark.process
def test_a_pull_step_does_not_import_the_blocks() -> None:
    code = (
        "import sys, prefect_mlauth.steps, prefect_mlauth as ours\n"
        "print('prefect_mlauth.blocks' in sys.modules, 'ZenMLCredentials' in dir(ours))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False True\n", done.stderr


def test_a_name_that_is_no_block_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'ZenMLCredential'"):
        _ = prefect_mlauth.ZenMLCredential


def test_what_is_saved_is_what_is_loaded(prefect_api: PrefectServer) -> None:
    blocks: list[Block] = [
        ZenMLCredentials(
            store_url=URL,
            api_key="file:///run/secrets/zenml/api-key",
            service_account="prefect-prod",
            stack="prod",
            project="default",
            credential="api_token",
            timeout=17.5,
            ca_bundle="/etc/ssl/ca.pem",
            allow_insecure=True,
        ),
        MLAuthProfile(profile="prod", config="/opt/flows/mlauth.toml", timeout=5),
        MLAuthProfile(content={"env": {"HF_TOKEN": "env://CI_HF_TOKEN"}}),
        AzureKeyVaultSecret(vault="acme", name="zenml-key", version="0123456789abcdef" * 2),
        ReferencedSecret(reference="file:///run/secrets/tokens.json#hf", timeout=5),
    ]
    for block in blocks:
        name = new_name()
        block.save(name)
        loaded = type(block).load(name)
        fields = set(type(block).model_fields)
        assert loaded.model_dump(include=fields) == block.model_dump(include=fields)
        assert pickle.loads(pickle.dumps(loaded)).model_dump() == loaded.model_dump()


# The fields of the earlier class, which was written by hand, in their order.
FIELDS_BEFORE: dict[str, Any] = {
    "store_url": "https://zenml.example.com",
    "api_key": "file:///run/secrets/zenml/api-key",
    "service_account": None,
    "stack": None,
    "project": None,
    "credential": "api_token",
    "verify": True,
    "timeout": 17.5,
    "ca_bundle": None,
    "allow_insecure": False,
}
SCHEMA_BEFORE = {
    "block_schema_references": {},
    "block_type_slug": "zenml-credentials",
    "properties": {
        name: {"title": name, "type": "string", "position": place}
        for place, name in enumerate(FIELDS_BEFORE)
    },
    "required": ["store_url", "api_key"],
    "secret_fields": [],
    "title": "ZenMLCredentials",
    "type": "object",
}


def test_a_document_that_was_written_with_an_earlier_schema_is_loaded(
    prefect_api: PrefectServer,
) -> None:
    _, block_type = ids_of(prefect_api, "zenml-credentials")
    body = {"fields": SCHEMA_BEFORE, "block_type_id": block_type["id"], "capabilities": []}
    schema = prefect_api.request("POST", "/block_schemas/", body)
    name = save_by_rest(prefect_api, ZenMLCredentials, FIELDS_BEFORE, schema["id"])
    for loaded in (ZenMLCredentials.load(name), Block.load(f"zenml-credentials/{name}")):
        assert isinstance(loaded, ZenMLCredentials)
        assert loaded.model_dump(include=set(FIELDS_BEFORE)) == FIELDS_BEFORE
        loaded.save(name, overwrite=True)  # from here on with the schema of now


Refused = tuple[type[Block], Callable[[str], dict[str, Any]]]
LITERALS: dict[str, Refused] = {
    "api_key": (ZenMLCredentials, lambda secret: {"store_url": URL, "api_key": secret}),
    "env": (MLAuthProfile, lambda secret: {"content": {"env": {"HF_TOKEN": secret}}}),
    "zenml": (
        MLAuthProfile,
        lambda secret: {"content": {"zenml": {"store_url": URL, "api_key": secret}}},
    ),
    "account": (
        ZenMLCredentials,
        lambda secret: {
            "store_url": URL,
            "api_key": REFERENCE,
            "service_account": f"ZENKEY_{secret}",
        },
    ),
    "reference": (ReferencedSecret, lambda secret: {"reference": secret}),
    "name": (
        AzureKeyVaultSecret,
        lambda secret: {"vault": "acme", "name": f"hf_{'x' * 20}{secret}"},
    ),
    "key of content": (
        MLAuthProfile,
        lambda secret: {"content": {"env": {f"ZENKEY_{secret}": REFERENCE}}},
    ),
}


def refuses(error: BaseException, canary: str) -> None:
    """The error is one line that says what to do. It and its causes do not hold the literal."""
    assert isinstance(error, InvalidBlock)
    assert "\n" not in str(error)
    assert "rotate it" in str(error)
    cause: BaseException | None = error
    while cause is not None:
        assert canary not in str(cause) + repr(cause)
        cause = cause.__cause__ or cause.__context__


@pytest.mark.parametrize(("block", "fields"), LITERALS.values(), ids=LITERALS)
def test_a_literal_is_refused_when_the_block_is_made(
    block: type[Block], fields: Callable[[str], dict[str, Any]], canary: str
) -> None:
    with pytest.raises(InvalidBlock) as caught:
        block(**fields(canary))
    refuses(caught.value, canary)


def test_a_literal_that_was_set_afterwards_is_refused_when_the_block_is_saved(
    prefect_api: PrefectServer, canary: str
) -> None:
    made = ZenMLCredentials(store_url=URL, api_key=REFERENCE)
    made.api_key = canary
    copied = ZenMLCredentials(store_url=URL, api_key=REFERENCE).model_copy(
        update={"api_key": canary}
    )
    content = MLAuthProfile(content={"env": {"HF_TOKEN": REFERENCE}})
    assert content.content is not None
    content.content["env"]["HF_TOKEN"] = canary
    for block in (made, copied, content):
        with pytest.raises(InvalidBlock) as caught:
            block.save(new_name())
        refuses(caught.value, canary)

        async def save(block: Block = block) -> None:
            await block.save(new_name())

        with pytest.raises(InvalidBlock) as caught:
            asyncio.run(save())
        refuses(caught.value, canary)
    assert search([canary], prefect_api.folder).found == []
    assert canary not in block_documents(prefect_api)


@pytest.mark.parametrize(("block", "fields"), LITERALS.values(), ids=LITERALS)
def test_a_literal_that_the_server_took_is_refused_on_load(
    block: type[Block],
    fields: Callable[[str], dict[str, Any]],
    canary: str,
    prefect_api: PrefectServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Somebody may save it in the UI, which sends the same request."""
    name = save_by_rest(prefect_api, block, fields(canary))
    slug = block.get_block_type_slug()
    with pytest.raises(InvalidBlock) as caught:
        block.load(name)
    refuses(caught.value, canary)
    with pytest.raises(InvalidBlock) as caught:
        block.load(name, validate=False)  # what Prefect's own errors advise
    refuses(caught.value, canary)
    with pytest.raises(InvalidBlock) as caught:
        asyncio.run(Block.aload(f"{slug}/{name}"))
    refuses(caught.value, canary)
    assert canary not in caplog.text


def save_by_rest(
    server: PrefectServer, block: type[Block], data: dict[str, Any], schema_id: str = ""
) -> str:
    schema, block_type = ids_of(server, block.get_block_type_slug())
    name = new_name()
    body = {
        "name": name,
        "data": data,
        "block_schema_id": schema_id or schema["id"],
        "block_type_id": block_type["id"],
    }
    server.request("POST", "/block_documents/", body)
    return name


@pytest.mark.load
def test_a_run_that_loads_a_literal_fails_without_repeating_it(
    project: Project, prefect_api: PrefectServer, canary: str
) -> None:
    fields = {"store_url": URL, "api_key": canary}
    name = save_by_rest(prefect_api, ZenMLCredentials, fields)
    run = project.run("execute", project.deploy("login", file="block_flows.py"), BLOCK=name)
    assert run.result.state_type == "FAILED", run.text
    assert "api_key: a literal stands where a secret reference belongs" in run.result.message
    assert "rotate it" in run.result.message
    assert canary not in run.text + run.output
    # The literal is where somebody put it, and nowhere else. (The server encrypts the document,
    # but keeps its content in clear in an event.)
    assert canary in block_documents(prefect_api)
    places = project.places_of([canary], run)
    assert {place.rpartition(": ")[2] for place in places if ": " in place} == {"events"}
    (found,) = {place.rpartition(": ")[0] for place in places if ": " in place}
    assert all(place.startswith(found) for place in places)  # the database's files


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"store_url": URL}, "api_key: is missing"),
        ({"store_url": "zenml.example.com"}, "store_url: must start with https://"),
        ({"store_url": "http://zenml.example.com"}, "use https, or set allow_insecure"),
        ({"api_key": "vualt://a/b"}, "no store is called 'vualt'"),
        ({"credential": "password"}, "credential: Input should be 'api_key' or 'api_token'"),
        ({"timeout": 0}, "timeout: Input should be greater than 0"),
        ({"stack": ""}, "stack: is empty: remove it, or give a name"),
        ({"service_acount": "x"}, "there is no field 'service_acount'; check the spelling"),
    ],
)
def test_a_field_that_is_wrong_is_named(fields: dict[str, Any], said: str) -> None:
    start = {} if fields == {"store_url": URL} else {"store_url": URL, "api_key": REFERENCE}
    with pytest.raises(InvalidBlock, match=re.escape(said)) as caught:
        ZenMLCredentials(**{**start, **fields})
    assert str(caught.value).startswith("ZenML Credentials block: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "give either profile"),
        ({"profile": "prod", "content": {"env": {"A": REFERENCE}}}, "give either profile"),
        ({"content": {}}, "content is empty: give it a system's section, or env"),
        ({"content": {"envy": {}}}, "content.envy: there is no such setting"),
        ({"content": {"env": {"PATH": REFERENCE}}}, "PATH changes how programs start"),
    ],
)
def test_a_profile_that_is_wrong_is_named(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidBlock, match=re.escape(said)) as caught:
        MLAuthProfile(**fields)
    assert str(caught.value).startswith("mlauth Profile block: ")


def zenml(account: Account, **fields: Any) -> ZenMLCredentials:
    return ZenMLCredentials(store_url=account.url, api_key=account.reference, **fields)


@pytest.mark.usefixtures("clean_environment")
class TestActivations:
    """In this process, against a real ZenML server."""

    def test_nested_blocks_are_undone_one_after_the_other(
        self, account: Account, zenml_server: Any, tmp_path: Path
    ) -> None:
        other = new_account(zenml_server, tmp_path, "other")
        before = dict(os.environ)
        with zenml(account).login():
            outer = dict(os.environ)
            with zenml(other).login() as activation:
                assert activation.account == other.name
                assert os.environ["ZENML_STORE_API_KEY"] == other.key
                assert "ZENML_STORE_API_KEY" in activation.warnings[0]  # that it was replaced
            assert dict(os.environ) == outer
        assert dict(os.environ) == before

    def test_one_object_serves_with_and_async_with_and_more_than_once(
        self, account: Account
    ) -> None:
        login = zenml(account).login()
        before = dict(os.environ)

        async def twice() -> None:
            for _ in range(2):
                async with login as activation:
                    assert activation.account == account.name
                    assert os.environ["ZENML_STORE_API_KEY"] == account.key

        with login:
            assert os.environ["ZENML_STORE_API_KEY"] == account.key
        assert dict(os.environ) == before
        asyncio.run(twice())
        assert dict(os.environ) == before

    def test_a_failure_sets_nothing(self, account: Account) -> None:
        before = dict(os.environ)
        block = zenml(account, service_account="somebody-else")
        report = block.check()
        assert report.status is Status.FAILED
        with pytest.raises(CheckFailed, match="not as 'somebody-else'") as caught, block.login():
            pytest.fail("entered")
        assert "\n" not in str(caught.value)
        assert dict(os.environ) == before

    def test_without_verify_the_server_is_not_asked(self) -> None:
        memory.put("key", "ZENKEY_eyJpZCI6ICJhIiwgImtleSI6ICJiIn0=")
        block = ZenMLCredentials(
            store_url="http://127.0.0.1:9", api_key="memory://key", verify=False
        )
        with block.login() as activation:
            assert os.environ["ZENML_STORE_URL"] == "http://127.0.0.1:9"
            assert activation.account is None
        profile = MLAuthProfile(
            content={"zenml": {"store_url": "http://127.0.0.1:9", "api_key": "memory://key"}},
            verify=False,
        )
        with profile.activate() as activation:
            assert "ZENML_STORE_URL" in activation.variables

    def test_a_profile_of_a_file_by_name(self, tmp_path: Path, canary: str) -> None:
        memory.put("token", canary)
        file = write_profile(tmp_path, "prod", env={"HF_TOKEN": "memory://token"})
        with MLAuthProfile(profile="prod", config=str(file)).activate() as activation:
            assert activation.variables == ("HF_TOKEN",)
            assert os.environ["HF_TOKEN"] == canary
        assert "HF_TOKEN" not in os.environ
        missing = MLAuthProfile(profile="dev", config=str(file)).activate()
        with pytest.raises(InvalidProfile, match="has no profile 'dev'"), missing:
            pytest.fail("entered")

    def test_a_literal_that_was_set_afterwards_is_not_used(self, canary: str) -> None:
        block = ZenMLCredentials(store_url=URL, api_key=REFERENCE)
        block.api_key = canary
        with pytest.raises(ValueError, match="rotate it") as caught, block.login():
            pytest.fail("entered")
        assert canary not in str(caught.value)


async def served(handle: Callable[..., Any], work: Callable[[str], Any]) -> None:
    """Run a server in the event loop of the work itself: it answers only if the loop is free."""
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        await work(f"http://127.0.0.1:{port}")


@pytest.mark.usefixtures("clean_environment")
def test_in_async_code_the_event_loop_goes_on_while_the_server_is_asked() -> None:
    memory.put("key", "ZENKEY_eyJpZCI6ICJhIiwgImtleSI6ICJiIn0=")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async def work(url: str) -> None:
        block = ZenMLCredentials(store_url=url, api_key="memory://key")
        report = await block.check()
        assert "is not a ZenML server" in report.summary()
        with pytest.raises(CheckFailed, match="is not a ZenML server"):
            async with block.login():
                pytest.fail("entered")

    asyncio.run(served(answer, work))


@pytest.mark.usefixtures("clean_environment")
def test_a_coroutine_that_is_cancelled_while_it_waits_has_set_nothing() -> None:
    memory.put("key", "ZENKEY_eyJpZCI6ICJhIiwgImtleSI6ICJiIn0=")
    before = dict(os.environ)

    async def work(url: str) -> None:
        asked = asyncio.Event()

        async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            asked.set()
            await reader.read()  # until the other side gives up
            writer.close()

        async def enter(url: str) -> None:
            block = ZenMLCredentials(store_url=url, api_key="memory://key", timeout=2)
            async with block.login():
                pytest.fail("entered")

        async def cancel(url: str) -> None:
            task = asyncio.create_task(enter(url))
            await asked.wait()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert task.cancelled()

        await served(hold, cancel)

    asyncio.run(work(""))  # its end waits for the thread
    assert dict(os.environ) == before
    assert [thread for thread in threading.enumerate() if thread.name.startswith("asyncio")] == []
