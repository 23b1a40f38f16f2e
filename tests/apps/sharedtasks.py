"""A task of Celery alone, which every application in the process has."""

from celery import shared_task


@shared_task(name="shared.task")
def task():
    return "shared"
