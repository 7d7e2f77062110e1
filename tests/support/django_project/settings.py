"""The settings of the test project."""

import atexit
import shutil
import tempfile

_folder = tempfile.mkdtemp(prefix="nexus-django-")
atexit.register(shutil.rmtree, _folder, ignore_errors=True)

SECRET_KEY = "of a test"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "nexus.django",
    "social.django",
    "tests.support.django_project",
]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{_folder}/db.sqlite3"}}
TASKS = {"default": {"BACKEND": "nexus.django.Backend", "QUEUES": ["default", "emails"]}}
NEXUS = {"STACK": "test", "MODULES": ["tests.support.django_project.tasks", "social.django.tasks"]}
SOCIAL = {"STACK": "nexus-test", "MIRRORS": "tests.support.django_project.mirrors"}
