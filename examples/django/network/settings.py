"""Settings, for the web server and for the Lambda function alike; differences are in the environment."""

import os
from importlib.util import find_spec
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY", "only for an example")
DEBUG = os.environ.get("DJANGO_DEBUG") == "1"
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
USE_TZ = True
TIME_ZONE = "UTC"
ROOT_URLCONF = "network.urls"
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "feed"
LOGOUT_REDIRECT_URL = "login"
STATIC_URL = "static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "nexus.django",
    "users",
    "posts",
]
if find_spec("ops") is not None:  # the operator's side is installed on the web server, not in the function
    INSTALLED_APPS.append("ops.django_admin")
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": os.environ.get("DATABASE_HOST", "127.0.0.1"),
        "PORT": os.environ.get("DATABASE_PORT", "5432"),
        "NAME": os.environ.get("DATABASE_NAME", "postgres"),
        "USER": os.environ.get("DATABASE_USER", "postgres"),
        "PASSWORD": os.environ.get("DATABASE_PASSWORD", ""),
        # A sandbox keeps its connection between messages, and checks that it still works after a freeze.
        "CONN_MAX_AGE": 60,
        "CONN_HEALTH_CHECKS": True,
        # RDS Proxy pins a session that uses server-side cursors.
        "DISABLE_SERVER_SIDE_CURSORS": True,
    }
}

TASKS = {"default": {"BACKEND": "nexus.django.Backend", "QUEUES": ["default"]}}
NEXUS = {
    "STACK": os.environ.get("NEXUS_STACK", "django-network"),
    "ACCOUNT_ID": os.environ.get("NEXUS_ACCOUNT_ID", "000000000000"),
    "REGION": os.environ.get("AWS_REGION", "eu-west-1"),
    "WEB": "http://127.0.0.1:8765",  # `nexus web`, on the viewer's own machine
}

# The network whose tasks work for this site's users and posts, if there is one: network/mirrors.py maps them.
if SOCIAL_STACK := os.environ.get("SOCIAL_STACK"):
    INSTALLED_APPS.append("social.django")
    SOCIAL = {"STACK": SOCIAL_STACK, "MIRRORS": "network.mirrors"}
