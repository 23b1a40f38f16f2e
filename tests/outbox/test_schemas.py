"""The tables in another schema, and in one for each tenant."""

from __future__ import annotations

import json

import pytest
from databases import engine_with_schemas, execute
from sqlalchemy import MetaData, create_engine, event, select, text
from sqlalchemy.pool import NullPool
from transactional import fail, invoke

from pyramid_tasks.contrib.outbox_table import OutboxMessage, outbox_table
from pyramid_tasks.exceptions import OutboxTableMissing
from pyramid_tasks.outbox.configuration import get_outbox
from pyramid_tasks.outbox.manage import Status, summarize
from pyramid_tasks.outbox.schemas import Schemas


def values_in(app, schema):
    """Return the ids of the tasks in the table of a schema."""
    app.flush()
    with get_outbox(app.registry).schemas.at(app.engine, schema).connect() as found:
        return list(found.scalars(select(OutboxMessage.task_id)))


@pytest.mark.parametrize("relays", [["a", "b"], ["a", None]])
def test_status_of_several(relays):
    """The outboxes of an application are counted together; each needs a relay."""
    parts = [Status(1, age, 2, relay) for age, relay in enumerate(relays)]
    assert summarize(parts) == Status(2, 1, 4, "a" if all(relays) else None)


def listed(app):
    """Return the ids that the command lists."""
    _, *lines = invoke(app, "list")[1].splitlines()
    return [line.split()[0] for line in lines]


def error_in(caplog):
    """Return the one error that was logged."""
    (error,) = [each for each in caplog.records if each.levelname == "ERROR"]
    return error.getMessage()


@pytest.mark.parametrize("kind", ["postgresql", "mariadb", "sqlite"])
@pytest.mark.parametrize("how", ["setting", "map", "both"])
def test_one_schema(kind, how, tmp_path, make_app):
    """The setting, and the map of the engine, hold for sessions, relays, commands."""
    with engine_with_schemas(kind, tmp_path, "app") as (engine, names):
        app_schema = names["app"]
        key = "logical" if how == "both" else None
        bind = engine
        if how != "setting":
            bind = engine.execution_options(schema_translate_map={key: app_schema})
        setting = {"setting": app_schema, "map": "", "both": key}[how]
        settings = {"pyramid_tasks.outbox_schema": setting}
        app = make_app(bind, **settings)
        missing = f"has no table {app_schema}.pyramid_tasks_outbox"
        assert missing in fail(app, "status")
        assert f"{app_schema}.pyramid_tasks_inbox: made." in invoke(app, "create")[1]
        execute(engine, "CREATE TABLE alembic_version (version_num CHAR(32))")
        output = invoke(app, "create")[1]
        assert "is there already" in output
        argument = f', schema="{setting}"' if setting else ""
        assert f"outbox_table(Base.metadata{argument})" in output

        app.defer(1, 2)
        app.defer(3)
        assert app.values() == [1, 2, 3]
        assert values_in(app, app_schema) == []
        results = make_app(bind, down=True, **settings).defer(4, 5)
        assert values_in(app, app_schema) == [each.id for each in results]
        assert "Waiting: 2" in invoke(app, "status")[1]
        assert invoke(app, "discard", listed(app)[0]) == (0, "Discarded: 1\n")
        assert app.relay().run_once() == 1
        assert app.values() == [5]


@pytest.fixture
def make_tenants(make_app):
    """Return a class of applications whose requests are of ``app.tenant``."""

    class Tenants(make_app):
        tenant = "one"

        def __init__(self, engine, *schemas, how="search_path", **settings):
            self.how = how
            schema = {"pyramid_tasks.outbox_schema": " ".join(schemas)}
            super().__init__(engine, **schema, **settings)

        def dbsession(self, request):
            session = super().dbsession(request)
            if self.how == "map":
                options = {"schema_translate_map": {None: self.tenant}}
                session.bind = self.engine.execution_options(**options)
                return session

            @event.listens_for(session, "after_begin")
            def choose(_session, _transaction, connection):
                path = {"search_path": "SET LOCAL search_path TO", "use": "USE"}
                connection.execute(text(f"{path[self.how]} {self.tenant}"))

            return session

        def defer_for(self, *tenants):
            for self.tenant in tenants:
                self.defer(self.tenant)

    return Tenants


@pytest.mark.parametrize(
    ("kind", "how"),
    [("postgresql", "search_path"), ("postgresql", "map"), ("mariadb", "use")],
)
def test_tenants(kind, how, tmp_path, make_tenants, caplog):
    """A relay works through a list of schemas, and the commands cover the list."""
    with engine_with_schemas(kind, tmp_path, "one", "two") as (engine, names):
        one, two = names.values()
        app = make_tenants(engine, one, two, how=how)
        down = make_tenants(engine, one, two, how=how, down=True)
        assert invoke(app, "create")[1].count(": made.") == 6

        app.defer_for(one, two, one)
        assert app.values() == [one, two, one]
        assert values_in(app, one) + values_in(app, two) == []
        down.defer_for(one, two)
        (found,) = {len(values_in(app, each)) for each in names.values()}
        assert found == 1
        total = json.loads(invoke(app, "status", "--json")[1])
        assert total["waiting"] == 2
        assert total["schemas"][two]["waiting"] == 1
        assert f"Schema: {two}\nWaiting: 1" in invoke(app, "status")[1]
        assert [each.rpartition(".")[0] for each in listed(app)] == [one, two]
        relay = app.relay()
        assert len(relay.send().sent) == 2
        assert app.values() == [one, two]
        assert app.relay().send() is None
        assert relay.run_once() == 0

        down.defer_for(one, two)
        ids = listed(app)
        for wrong, reason in {"1": "several schemas", "x.1": "no schema of"}.items():
            assert reason in fail(app, "retry", wrong, status=2)
        assert invoke(app, "retry", *ids) == (0, "To be tried again: 2\n")
        assert invoke(app, "discard", *ids) == (0, "Discarded: 2\n")
        assert "no relay" not in caplog.text
        assert "not found" not in caplog.text


@pytest.mark.parametrize("setting", ["", "other more"])
@pytest.mark.parametrize("send", ["thread", "request", "relay"])
def test_where_no_relay_looks(send, setting, tmp_path, make_tenants, caplog):
    """A commit where no relay looks is an error that names places and the setting."""
    schemas = "one", "other", "more"
    with engine_with_schemas("postgresql", tmp_path, *schemas) as (engine, _):
        for each in [], schemas:
            invoke(make_tenants(engine, *each), "create")
        app = make_tenants(engine, setting, pyramid_tasks__outbox_send=send)
        app.defer_for("one", "one")
        message = error_in(caplog)
        assert "committed to one.pyramid_tasks_outbox" in message
        where = "other.pyramid_tasks_outbox" if setting else "public.pyramid_tasks_outb"
        assert where in message
        assert "pyramid_tasks.outbox_schema" in message
        # What the process sends is sent nevertheless.
        if send != "relay":
            assert app.values() == ["one", "one"]
            assert values_in(app, "one") == []


def test_where_no_relay_looks_in_mariadb(tmp_path, make_tenants, caplog):
    """So it is in a database that a session has chosen by USE."""
    with engine_with_schemas("mariadb", tmp_path, "one") as (engine, names):
        for each in [], names.values():
            invoke(make_tenants(engine, *each), "create")
        app = make_tenants(engine, how="use", pyramid_tasks__outbox_send="relay")
        app.defer_for(names["one"])
        message = error_in(caplog)
        assert f"committed to {names['one']}.pyramid_tasks_outbox" in message
        assert f"but in {engine.url.database}.pyramid_tasks_outbox" in message


def test_database_of_the_relay_is_down(postgresql, make_app, caplog):
    """Then nobody knows where the relay looks, and the request goes on."""
    caplog.set_level("DEBUG", "pyramid_tasks")
    down = create_engine("postgresql+psycopg://localhost:1/x")
    app = make_app(postgresql, lambda config: config.set_task_outbox(engine=down))
    app.defer(1)
    assert "Whether a relay looks in public is unknown: " in caplog.text
    assert app.values() == [1]


def test_rows_that_another_connection_does_not_find(tmp_path, make_tenants, caplog):
    """Where the database does not say where rows are, as MySQL, they are missed."""
    with engine_with_schemas("mariadb", tmp_path, "one") as (pooled, names):
        # USE holds as long as a connection does.
        engine = create_engine(pooled.url, poolclass=NullPool)
        engine.connect().close()
        engine.dialect.insert_returning = False
        engine.dialect.insert_executemany_returning_sort_by_parameter_order = False
        app = make_tenants(engine, how="use")
        invoke(app, "create")
        invoke(make_tenants(engine, names["one"]), "create")
        app.tenant = names["one"]
        with app.request() as request, request.tm:
            request.defer_tasks("record", [(1,), (2,)])
        app.flush()
        message = error_in(caplog)
        assert "2 tasks that were just committed are not found" in message
        assert "pyramid_tasks.outbox_schema" in message


@pytest.mark.parametrize(
    ("kind", "how"), [("postgresql", "search_path"), ("mariadb", "use")]
)
def test_many_in_a_closed_session(kind, how, tmp_path, make_tenants):
    """What a session loses is written again where the session had written it."""
    with engine_with_schemas(kind, tmp_path, "one", "two") as (engine, names):
        app = make_tenants(engine, *names.values(), how=how, down=True)
        app.tenant = names["two"]
        invoke(app, "create")
        with app.request() as request, request.tm:
            request.defer_task("record", 1)
            request.defer_tasks("record", [(2,), (3,)])
            request.dbsession.close()
        assert len(values_in(app, names["two"])) == 3


def test_missing_schema(postgresql, make_app, caplog):
    """A schema that is not there is named, and one that is not known is not."""
    app = make_app(postgresql, pyramid_tasks__outbox_schema="nowhere")
    for command in "create", "status":
        assert "has no schema nowhere" in fail(app, command)
    Schemas(["one", "two"]).check(postgresql, None)
    assert caplog.text == ""


def test_declared_in_another_schema(sqlite, make_app):
    """Who declares the table elsewhere than the setting says is told so."""
    assert outbox_table(MetaData(), schema="shop").schema == "shop"
    target = MetaData(schema="shop")
    assert outbox_table(target).schema == "shop"
    engine = create_engine("sqlite://")
    words = r"declares .* shop: set pyramid_tasks.outbox_schema = shop\."
    with pytest.raises(OutboxTableMissing, match=words):
        make_app(engine).defer(1)
