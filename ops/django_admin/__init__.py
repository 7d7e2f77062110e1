"""The operator's pages in a Django project's admin: `"ops.django_admin"` in INSTALLED_APPS, where the web server runs.

What belongs here: the admin's frame, permissions and forms. What does not: anything that asks AWS, which is the other
modules' of `ops`; the models, which are `nexus.django`'s and are migrated where `ops` is not.
"""
