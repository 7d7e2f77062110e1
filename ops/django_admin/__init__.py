"""The operator's pages in a Django project's admin: `"ops.django_admin"` in INSTALLED_APPS, where the web server runs.

Belongs here: the admin's pages, permissions and forms. Does not belong here: AWS requests (the other modules of `ops`)
and the models (`nexus.django`, which is also migrated where `ops` is not installed).
"""
