"""A loader of another package that speaks the ``celery`` protocol itself."""

from pathlib import Path

from celery import Celery


class Loader:
    def __init__(self, uri):
        self.uri = uri

    def get_sections(self):
        return []

    def setup_logging(self, defaults=None):
        pass

    def get_celery_app(self, name=None, defaults=None):
        text = Path(self.uri.path).read_text().strip()
        app = Celery(text, broker="memory://", set_as_current=False)
        app.conf.arguments = (name, defaults)
        return app

    def get_celery_app_settings(self, name=None, defaults=None):
        return {}


def wrong_factory(loader, global_conf, **settings):
    """A ``[celery:NAME]`` factory that does not do what it should."""
    return "no application"
