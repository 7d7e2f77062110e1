"""Users' tables in the admin."""

from django.contrib import admin

from users.models import Follow, Notification, Profile

admin.site.register([Follow, Notification, Profile])
