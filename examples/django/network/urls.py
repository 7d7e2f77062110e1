"""The addresses of the site."""

from django.contrib import admin
from django.contrib.auth import views as auth
from django.contrib.staticfiles.urls import staticfiles_urlpatterns
from django.urls import path
from posts import views as posts
from users import views as users

urlpatterns = [
    path("", posts.feed, name="feed"),
    path("posts/<int:post_id>/picture", posts.picture, name="picture"),
    path("register", users.register, name="register"),
    path("follow/<int:user_id>", users.follow, name="follow"),
    path("login", auth.LoginView.as_view(template_name="login.html"), name="login"),
    path("logout", auth.LogoutView.as_view(), name="logout"),
    path("admin/", admin.site.urls),
    *staticfiles_urlpatterns(),  # only with DEBUG
]
