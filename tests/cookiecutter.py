"""A project with the layout that Pyramid's cookiecutter makes, with SQLAlchemy.

It has the files, functions and fixtures of such a project, as far as this package meets
them, so that the diffs of the documentation apply to both.
"""

from __future__ import annotations

import re
from pathlib import Path

from support import logging_sections

FILES = {
    "pyproject.toml": """\
[project]
version = "0.0"
name = "shop"
dependencies = [
    "alembic",
    "pyramid",
]
""",
    "development.ini": """\
[app:main]
use = egg:shop

sqlalchemy.url = sqlite:///%(here)s/shop.sqlite

retry.attempts = 3

[alembic]
script_location = shop/alembic

[server:main]
use = egg:waitress#main
listen = localhost:6543
"""
    + logging_sections("%(levelname)-5.5s [%(name)s] %(message)s"),
    "shop/__init__.py": """\
from pyramid.config import Configurator


def main(global_config, **settings):
    with Configurator(settings=settings) as config:
        config.include('.routes')
        config.include('.models')
        config.scan()
    return config.make_wsgi_app()
""",
    "shop/routes.py": """\
def includeme(config):
    config.add_route('home', '/')
""",
    "shop/views/__init__.py": "",
    "shop/views/default.py": """\
from pyramid.view import view_config

from .. import models


@view_config(route_name='home', renderer='json')
def my_view(request):
    count = request.dbsession.query(models.MyModel).count()
    return {'count': count, 'project': 'shop'}
""",
    "shop/models/__init__.py": """\
import zope.sqlalchemy
from sqlalchemy import engine_from_config
from sqlalchemy.orm import configure_mappers, sessionmaker

from .mymodel import MyModel  # flake8: noqa

# run configure_mappers after defining all of the models
configure_mappers()


def get_engine(settings, prefix='sqlalchemy.'):
    return engine_from_config(settings, prefix)


def get_tm_session(session_factory, transaction_manager, request=None):
    session = session_factory(info={'request': request})
    zope.sqlalchemy.register(session, transaction_manager=transaction_manager)
    return session


def includeme(config):
    settings = config.get_settings()
    settings['tm.manager_hook'] = 'pyramid_tm.explicit_manager'
    config.include('pyramid_tm')
    config.include('pyramid_retry')
    engine = settings.get('dbengine') or get_engine(settings)
    session_factory = sessionmaker(bind=engine)
    config.registry['dbsession_factory'] = session_factory

    def dbsession(request):
        given = request.environ.get('app.dbsession')
        return given or get_tm_session(session_factory, request.tm, request)

    config.add_request_method(dbsession, reify=True)
""",
    "shop/models/meta.py": """\
from sqlalchemy.orm import declarative_base
from sqlalchemy.schema import MetaData

metadata = MetaData(naming_convention={'pk': 'pk_%(table_name)s'})
Base = declarative_base(metadata=metadata)
""",
    "shop/models/mymodel.py": """\
from sqlalchemy import Column, Integer, Text

from .meta import Base


class MyModel(Base):
    __tablename__ = 'models'
    id = Column(Integer, primary_key=True)
    name = Column(Text, unique=True)
    value = Column(Integer)
""",
    "shop/alembic/env.py": """\
from alembic import context
from pyramid.paster import get_appsettings, setup_logging
from sqlalchemy import engine_from_config

from shop.models.meta import Base

setup_logging(context.config.config_file_name)
settings = get_appsettings(context.config.config_file_name)
with engine_from_config(settings, prefix='sqlalchemy.').connect() as connection:
    context.configure(connection=connection, target_metadata=Base.metadata)
    with context.begin_transaction():
        context.run_migrations()
""",
    "shop/alembic/script.py.mako": """\
from alembic import op
import sqlalchemy as sa
${imports if imports else ""}

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}

def upgrade():
    ${upgrades if upgrades else "pass"}

def downgrade():
    ${downgrades if downgrades else "pass"}
""",
    "shop/alembic/versions/README.txt": "",
    "tests/__init__.py": "",
    "tests/conftest.py": """\
import alembic.command
import alembic.config
import pytest
import transaction
import webtest
from pyramid.paster import get_appsettings

from shop import main, models
from shop.models.meta import Base


@pytest.fixture(scope='session')
def dbengine():
    engine = models.get_engine(get_appsettings('testing.ini'))
    Base.metadata.drop_all(bind=engine)
    config = alembic.config.Config('testing.ini')
    alembic.command.stamp(config, None, purge=True)
    alembic.command.upgrade(config, 'head')
    yield engine
    Base.metadata.drop_all(bind=engine)


@pytest.fixture(scope='session')
def app(dbengine):
    return main({}, dbengine=dbengine, **get_appsettings('testing.ini'))


@pytest.fixture
def tm():
    tm = transaction.TransactionManager(explicit=True)
    tm.begin()
    tm.doom()
    yield tm
    tm.abort()


@pytest.fixture
def dbsession(app, tm):
    return models.get_tm_session(app.registry['dbsession_factory'], tm)


@pytest.fixture
def testapp(app, tm, dbsession):
    return webtest.TestApp(app, extra_environ={
        'HTTP_HOST': 'example.com',
        'tm.active': True,
        'tm.manager': tm,
        'app.dbsession': dbsession,
    })
""",
    "tests/test_functional.py": """\
def test_my_view(testapp):
    assert testapp.get('/').json['count'] == 0
""",
}
FILES["testing.ini"] = FILES["development.ini"].replace("shop.sqlite", "testing.sqlite")


#: What ``pip install --editable`` would leave in the environment, for ``egg:shop``.
INSTALLED = {
    "shop-0.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: shop\nVersion: 0.0\n",
    "shop-0.0.dist-info/entry_points.txt": "[paste.app_factory]\nmain = shop:main\n",
}


def write_project(folder: Path) -> None:
    """Write the files of the project."""
    for name, text in (FILES | INSTALLED).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def apply_diff(folder: Path, diff: str) -> None:
    """Change files as a diff says, whose hunks have no numbers.

    The lines that begin with a space or with a minus are looked for in the file.
    """
    for name, hunk in re.findall(
        r"^--- \S+\n\+\+\+ (\S+)\n((?:[ +-].*\n|\n)+?)(?=^---|\Z)", diff, re.MULTILINE
    ):
        lines = [line or " " for line in hunk.splitlines()]
        before = "\n".join(line[1:] for line in lines if line[0] != "+")
        after = "\n".join(line[1:] for line in lines if line[0] != "-")
        path = folder / name
        text = path.read_text() if path.exists() else ""
        assert text.count(before) == 1 or not text, (name, before)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace(before, after) if text else after + "\n")
