"""Applications with errors of their own, which must not look like errors of a file."""

import configparser
import importlib
import logging.config

from pyramid.config import Configurator

from pyramid_tasks.exceptions import SettingError


def attribute_error(global_config, **settings):
    return None.missing


def lookup_error(global_config, **settings):
    raise LookupError("of the application")


def key_error(global_config, **settings):
    return settings["no such setting"]


def import_error(global_config, **settings):
    import missing_dependency  # noqa: F401


def import_error_by_name(global_config, **settings):
    importlib.import_module("missing_dependency")


def type_error(global_config, **settings):
    return len(1)


def file_error(global_config, **settings):
    with open("/no/such/file"):  # noqa: PTH123
        pass


def configparser_error(global_config, **settings):
    configparser.ConfigParser().read_string("no section")


def logging_error(global_config, **settings):
    logging.config.dictConfig({"version": "none"})


def setting_error(global_config, **settings):
    def refuse():
        raise SettingError("own.key", "is wrong.")

    config = Configurator(settings=settings)
    config.action(None, refuse)
    return config.make_wsgi_app()


def action_error(global_config, **settings):
    config = Configurator(settings=settings)
    config.action(None, lambda: None.missing)
    return config.make_wsgi_app()


def factory_error(loader, global_config, **settings):
    """A factory for ``[celery:NAME]``."""
    raise LookupError("of the factory")


def wrong_signature(global_config):
    """It takes no settings."""


def reads_a_file(global_config, **settings):
    """An application that reads a file of its own, as Pyramid applications do."""
    import plaster

    plaster.get_settings("/no/such/file.ini", "app:main")


def system_exit(global_config, **settings):
    raise SystemExit(0)


def configured(global_config, **settings):
    """Fail when the configuration is committed, which Pyramid wraps."""
    config = Configurator(settings=settings)
    config.include("pyramid_tasks")

    def act():
        raise ValueError("an error of the application itself")

    config.action("act", act)
    return config.make_wsgi_app()


def scanned(global_config, **settings):
    """Register a task that is none."""
    config = Configurator(settings=settings)
    config.include("pyramid_tasks")
    config.register_task(lambda: None, name="no_request")
    return config.make_wsgi_app()


def not_included(global_config, **settings):
    """Scan tasks, and do not include pyramid_tasks."""
    config = Configurator(settings=settings)
    config.scan("exampleapp")
    return config.make_wsgi_app()
