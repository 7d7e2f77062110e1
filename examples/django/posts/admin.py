"""Posts in the admin."""

from django.contrib import admin

from posts.models import Post


@admin.register(Post)
class PostAdmin(admin.ModelAdmin):
    """Hides the pictures' bytes."""

    list_display = ("text", "author", "created_at", "rejected")
    exclude = ("original", "thumbnail")
