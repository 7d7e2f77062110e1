"""The settings of the test project."""

import atexit
import shutil
import tempfile

_folder = tempfile.mkdtemp(prefix="nexus-django-")
atexit.register(shutil.rmtree, _folder, ignore_errors=True)

SECRET_KEY = "of a test"
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "nexus.django",
    "ops.django_admin",
    "social.django",
    "tests.support.django_project",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]
ROOT_URLCONF = "tests.support.django_project.urls"
STATIC_URL = "static/"
ALLOWED_HOSTS = ["testserver"]
# The data may be lost when the machine stops.
_OPTIONS = {"init_command": "PRAGMA synchronous=OFF; PRAGMA journal_mode=MEMORY"}
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{_folder}/db.sqlite3", "OPTIONS": _OPTIONS},
    "other": {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{_folder}/other.sqlite3", "OPTIONS": _OPTIONS},
    # It refuses every write, as a read replica does.
    "replica": {"ENGINE": "django.db.backends.sqlite3", "NAME": f"file:{_folder}/db.sqlite3?mode=ro"},
}
TASKS = {"default": {"BACKEND": "nexus.django.Backend", "QUEUES": ["default", "emails"]}}
NEXUS = {"STACK": "test", "MODULES": ["tests.support.django_project.tasks", "social.django.tasks"]}
SOCIAL = {"STACK": "nexus-test", "MIRRORS": "tests.support.django_project.mirrors"}
