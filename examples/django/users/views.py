"""Registration and following."""

from django.contrib.auth import get_user_model, login
from django.contrib.auth.decorators import login_required
from django.contrib.auth.forms import UserCreationForm
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST

from nexus.django.models import Outbox
from users.models import Follow, Profile
from users.tasks import welcome


def register(request: HttpRequest) -> HttpResponse:
    """Creates an account. The welcome is put into the outbox in the same transaction."""
    form = UserCreationForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        with transaction.atomic():
            user = form.save()
            Profile.objects.create(user=user)
            Outbox.add(welcome, user.pk)
        login(request, user)
        return redirect("feed")
    return render(request, "register.html", {"form": form})


@require_POST
@login_required
def follow(request: HttpRequest, user_id: int) -> HttpResponse:
    """Follows a user. Idempotent."""
    followed = get_object_or_404(get_user_model(), pk=user_id)
    Follow.objects.get_or_create(follower=request.user, followed=followed)
    return redirect("feed")
