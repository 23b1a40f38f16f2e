"""``config.add_task_context``: the directive."""

from __future__ import annotations

import pytest
from contextapp import capture_tenant, restore_tenant
from pyramid.exceptions import ConfigurationConflictError, ConfigurationError
from pyramid.request import Request
from pyramid.scripting import prepare


def failing(request, *args):
    raise LookupError("must not be called")


def tenant_of_task(config):
    """Defer a task, and return the tenant that it knows."""
    config.register_task(lambda request: request.tenant, name="it")
    config.commit()
    request = Request.blank("/", headers={"X-Tenant": "acme"})
    with prepare(request, config.registry):
        return request.defer_task("it").get()


@pytest.mark.parametrize("prefix", ["contextapp:", "contextapp.", "."])
def test_dotted_names(eager, prefix):
    """The functions can be dotted names, relative to the package as well."""
    if prefix == ".":
        eager = eager.with_package("contextapp")
    names = prefix + "capture_tenant", prefix + "restore_tenant"
    eager.add_task_context("tenant", *names)
    assert tenant_of_task(eager) == "acme"


@pytest.mark.parametrize("functions", [(None, None), (len, None), (3, len)])
def test_no_functions(config, functions):
    """A context without its two functions is an error where it is added."""
    with pytest.raises(ConfigurationError, match="'it' needs two functions"):
        config.add_task_context("it", *functions)


async def restore_later(request, value):
    """Nobody awaits it."""


@pytest.mark.parametrize(
    ("functions", "problem"),
    [
        (
            (capture_tenant, restore_later),
            r"restore_later\(request, value\), and nobody",
        ),
        ((restore_later, restore_tenant), r"restore_later\(request\), and nobody aw"),
        ((capture_tenant, capture_tenant), "too many positional arguments"),
        ((restore_tenant, restore_tenant), "missing a required argument: 'value'"),
    ],
)
def test_wrong_functions(config, functions, problem):
    """Functions that would do nothing, or fail in each task, are refused at once."""
    with pytest.raises(ConfigurationError, match=problem):
        config.add_task_context("it", *functions)


def test_conflict(config):
    """Two contexts of one name are a conflict."""
    config.add_task_context("tenant", capture_tenant, restore_tenant)
    config.add_task_context("tenant", failing, failing)
    with pytest.raises(ConfigurationConflictError, match="'tenant'"):
        config.commit()


def test_override(eager):
    """The application overrides a context of what it includes."""
    eager.include(lambda config: config.add_task_context("tenant", failing, failing))
    eager.add_task_context("tenant", capture_tenant, restore_tenant)
    assert tenant_of_task(eager) == "acme"


def test_override_of_a_built_in_context(configure):
    """The application overrides a context of the package, too."""
    config = configure(
        **{"pyramid_tasks.context": "user", "celery.task_always_eager": True}
    )
    config.add_task_context("user", capture_tenant, restore_tenant)
    assert tenant_of_task(config) == "acme"


def test_introspectable(configure):
    """Tools can list the contexts, also those of the package."""
    config = configure(**{"pyramid_tasks.context": "host"})
    config.add_task_context("tenant", capture_tenant, restore_tenant)
    config.commit()
    category = config.introspector.get_category("task contexts")
    host, tenant = (item["introspectable"] for item in category)
    assert (host.title, tenant.title) == ("host", "tenant")
    assert tenant["capture"] is capture_tenant
    assert tenant["restore"] is restore_tenant
    assert tenant.type_name == "task context"
    assert "test_contexts.py" in str(tenant.action_info)
