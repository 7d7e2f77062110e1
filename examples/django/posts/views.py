"""The feed, and the pictures in it."""

from django import forms
from django.contrib.auth.decorators import login_required
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render

from nexus.django import enqueue_on_commit
from posts.models import Post
from posts.tasks import make_thumbnail

MAX_BYTES = 5_000_000


class NewPost(forms.Form):
    """A text and a picture."""

    text = forms.CharField(max_length=500)
    picture = forms.FileField()

    def clean_picture(self) -> bytes:
        """The picture's bytes. Raises ValidationError if there are too many."""
        file = self.cleaned_data["picture"]
        if file.size > MAX_BYTES:
            raise forms.ValidationError(f"The picture is over {MAX_BYTES // 1_000_000} MB.")
        found: bytes = file.read()
        return found


@login_required
def feed(request: HttpRequest) -> HttpResponse:
    """All posts, newest first, and a form for a new one."""
    form = NewPost(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        with transaction.atomic():
            post = Post.objects.create(
                author=request.user, text=form.cleaned_data["text"], original=form.cleaned_data["picture"]
            )
            enqueue_on_commit(make_thumbnail, post.pk)
        return redirect("feed")
    posts = Post.objects.defer("original", "thumbnail").select_related("author__profile")[:50]
    return render(request, "feed.html", {"form": form, "posts": posts})


@login_required
def picture(_: HttpRequest, post_id: int) -> HttpResponse:
    """A post's thumbnail."""
    post = get_object_or_404(Post.objects.only("thumbnail"), pk=post_id)
    if post.thumbnail is None:
        raise Http404
    return HttpResponse(bytes(post.thumbnail), content_type="image/webp")
