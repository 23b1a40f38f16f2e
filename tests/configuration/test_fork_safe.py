"""``config.add_fork_safe``: the directive."""

from __future__ import annotations

from functools import partial

import pytest
from pyramid.exceptions import ConfigurationConflictError, ConfigurationError
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker

from pyramid_tasks import PyramidTasksError
from pyramid_tasks.worker.forking import leave_to_parent


@pytest.mark.parametrize(
    "hand_over", [lambda engine: engine, lambda engine: engine.dispose, sessionmaker]
)
def test_engine(hand_over, config, tmp_path):
    """An engine that is handed over is left to the parent, not closed."""
    engine = create_engine(f"sqlite:///{tmp_path}/test.sqlite")
    with engine.connect():
        pass
    config.add_fork_safe(hand_over(engine))
    config.commit()
    (pool,) = leave_to_parent(config.registry)
    assert (pool.checkedin(), engine.pool.checkedin()) == (1, 0)
    pool.dispose()


def test_functions(config):
    """Functions are called with the registry, in order, once they are committed."""
    called = []
    config.add_fork_safe(lambda registry: called.append(("first", registry)))
    config.add_fork_safe(partial(called.append))
    assert leave_to_parent(config.registry) == []
    assert called == []
    config.commit()
    leave_to_parent(config.registry)
    assert called == [("first", config.registry), config.registry]


def test_builtin(config):
    """A builtin that does not tell its arguments is called, too."""
    copied = {}
    config.add_fork_safe(copied.update)
    config.commit()
    leave_to_parent(config.registry)
    assert copied == config.registry


def forget(registry):
    registry["forgotten"] = True


def test_dotted_name(config):
    """A dotted name is looked up, and what it stands for is introspectable."""
    config.add_fork_safe(f"{__name__}.forget")
    config.commit()
    leave_to_parent(config.registry)
    assert config.registry["forgotten"]
    (item,) = config.introspector.get_category("fork safe")
    assert item["introspectable"]["dispose"].__name__ == "forget"


def test_conflict(config):
    """The same function twice is a conflict, as with any directive."""
    config.add_fork_safe(forget)
    config.add_fork_safe(forget)
    with pytest.raises(ConfigurationConflictError):
        config.commit()


def test_something_else(config):
    """What is neither a function nor an engine is refused where it is handed over."""
    with pytest.raises(PyramidTasksError, match="a function or an engine, not 17"):
        config.add_fork_safe(17)
    with pytest.raises(ConfigurationError, match="too many positional arguments"):
        config.add_fork_safe(lambda: None)
