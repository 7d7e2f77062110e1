"""A Django project of the tests."""
