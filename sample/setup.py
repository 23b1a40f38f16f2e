"""The sample application of pyramid_tasks, installable by itself."""

# ruff: noqa: INP001 - a script

from setuptools import setup

setup(
    name="sampleapp",
    version="1.0",
    description="Imports expenses from CSV files: a sample for pyramid_tasks",
    packages=["sampleapp"],
    package_data={"sampleapp": ["py.typed", "static/*", "templates/*"]},
    python_requires=">=3.11",
    install_requires=[
        "celery",
        "pyramid >= 2.0",
        "pyramid_jinja2",
        "pyramid_tasks[outbox]",
        "SQLAlchemy >= 2.0",
        "waitress",
        "zope.sqlalchemy",
    ],
    extras_require={
        # What production.ini needs besides.
        "production": ["celery[redis] >= 5.5", "psycopg[binary] >= 3.1"],
    },
    entry_points={"paste.app_factory": ["main = sampleapp:main"]},
)
