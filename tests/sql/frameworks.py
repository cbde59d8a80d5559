#!/usr/bin/env python3
"""Django 5.2 for real: its own migrations, forward and back, and its ORM, sessions, dumps and introspection on top of them.

Use     frameworks.py [word ..]: checks whose names hold a word; ORACLE=postgres asks PostgreSQL 15 instead, where all must hold.
Rule    as in drivers.py: what Fluence is known not to do stands in KNOWN with its reason, and one that holds by now is said to.
"""

import datetime
import io
import json
import pathlib
import sys
import tempfile

import checks
import served

served.drivers(served.HERE / "frameworks.txt")

import django  # noqa: E402
from django.conf import settings  # noqa: E402

KNOWN = {
    "constraints_are_found": "unnest .. WITH ORDINALITY, which DataFusion does not plan",
}

CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def same(got, expected):
    assert got == expected, f"got {got!r}, expected {expected!r}"


def call(*words, **options):
    from django.core.management import call_command
    out = io.StringIO()
    call_command(*words, stdout=out, **options)
    return out.getvalue()


def models():
    from django.contrib.auth.models import Group, Permission, User
    return User, Group, Permission


def fresh(name):
    """A group of that name, without permissions."""
    _, group, _ = models()
    group.objects.filter(name=name).delete()
    return group.objects.create(name=name)


@check
def all_migrations_run_and_again_do_nothing():
    told = call("migrate")
    same(told.count(" OK"), 15)
    assert "No migrations to apply" in call("migrate")
    assert "[ ]" not in call("showmigrations")


@check
def permissions_are_made_in_bulk():
    _, _, permission = models()
    same(permission.objects.filter(content_type__app_label="auth").count(), 12)
    names = permission.objects.filter(content_type__model="user").order_by("codename").values_list("codename", flat=True)
    same(list(names), ["add_user", "change_user", "delete_user", "view_user"])


@check
def users_are_made_found_changed_and_deleted():
    user, _, _ = models()
    user.objects.filter(username="ada").delete()
    user.objects.create_user("ada", "ada@example.org", "secret words")
    ada = user.objects.get(username__iexact="ADA")
    same((ada.email, ada.check_password("secret words")), ("ada@example.org", True))
    same(user.objects.filter(username="ada").update(first_name="Ada"), 1)
    ada.refresh_from_db()
    same(ada.first_name, "Ada")
    same(user.objects.filter(email__icontains="EXAMPLE", first_name__startswith="A").exists(), True)
    same(ada.delete()[0], 1)


@check
def a_unique_name_is_unique():
    from django.db import IntegrityError, transaction
    _, group, _ = models()
    fresh("once")
    try:
        with transaction.atomic():
            group.objects.create(name="once")
    except IntegrityError:
        return
    raise AssertionError("there are two")


@check
def many_to_many_goes_both_ways():
    user, _, permission = models()
    group = fresh("readers")
    group.permissions.set(permission.objects.filter(codename__startswith="view_"))
    user.objects.filter(username="bob").delete()
    bob = user.objects.create_user("bob")
    bob.groups.add(group)
    assert bob.has_perm("auth.view_user") and not bob.has_perm("auth.add_user")
    same([g.name for g in permission.objects.get(codename="view_user").group_set.all()], ["readers"])


@check
def what_is_grouped_by_the_key_shows_all_columns():
    from django.db.models import Count
    _, group, permission = models()
    fresh("none")
    some = fresh("some")
    some.permissions.set(permission.objects.all()[:3])
    counted = group.objects.filter(name__in=["none", "some"]).annotate(n=Count("permissions")).order_by("name")
    same([(g.name, g.n) for g in counted], [("none", 0), ("some", 3)])
    same([g.name for g in counted.filter(n__gt=1)], ["some"])


@check
def expressions_and_conditions_are_computed():
    from django.db.models import Case, F, Q, Value, When
    from django.db.models.functions import Concat, Length
    _, group, _ = models()
    for name in ["x", "yy"]:
        fresh(name)
    mine = group.objects.filter(Q(name="x") | Q(name="yy"))
    said = Case(When(name="x", then=Value("one")), default=Value("more"))
    rows = mine.annotate(said=said, twice=Concat(F("name"), F("name")), size=Length("name")).order_by("name")
    same(list(rows.values_list("said", "twice", "size")), [("one", "xx", 1), ("more", "yyyy", 2)])


@check
def rows_are_written_in_bulk():
    _, group, _ = models()
    group.objects.filter(name__startswith="bulk").delete()
    made = group.objects.bulk_create([group(name=f"bulk {n}") for n in range(40)])
    assert len({g.pk for g in made}) == 40 and None not in [g.pk for g in made]
    group.objects.bulk_create([group(name=f"bulk {n}") for n in range(41)], ignore_conflicts=True)
    same(group.objects.filter(name__startswith="bulk").count(), 41)
    for one in made:
        one.name += " again"
    same(group.objects.bulk_update(made, ["name"]), 40)
    same(group.objects.filter(name__endswith="again").count(), 40)
    same(group.objects.filter(name__startswith="bulk").delete()[1], {"auth.Group": 41})


@check
def a_row_is_had_or_made():
    _, group, _ = models()
    group.objects.filter(name__in=["had", "changed"]).delete()
    same(group.objects.get_or_create(name="had")[1], True)
    same(group.objects.get_or_create(name="had")[1], False)
    same(group.objects.update_or_create(name="had", defaults={"name": "changed"})[0].name, "changed")


@check
def blocks_nest_and_what_fails_is_undone():
    from django.db import transaction
    _, group, _ = models()
    group.objects.filter(name__in=["kept", "undone"]).delete()
    with transaction.atomic():
        group.objects.create(name="kept")
        try:
            with transaction.atomic():
                group.objects.create(name="undone")
                raise ValueError
        except ValueError:
            pass
    same(sorted(group.objects.filter(name__in=["kept", "undone"]).values_list("name", flat=True)), ["kept"])


@check
def dates_are_cut_and_collected():
    user, _, _ = models()
    user.objects.filter(username="carol").delete()
    at = datetime.datetime(2024, 2, 29, 23, 30, tzinfo=datetime.timezone.utc)
    user.objects.create(username="carol", date_joined=at)
    carol = user.objects.filter(username="carol")
    same(list(carol.dates("date_joined", "month")), [datetime.date(2024, 2, 1)])
    same(carol.filter(date_joined__year=2024, date_joined__day=29).count(), 1)
    same(carol.get().date_joined, at)


@check
def a_session_is_kept_and_ended():
    from django.contrib.sessions.backends.db import SessionStore
    session = SessionStore()
    session["cart"] = [1, 2]
    session.save()
    same(SessionStore(session_key=session.session_key)["cart"], [1, 2])
    session.flush()
    same(SessionStore(session_key=session.session_key).get("cart"), None)


@check
def tables_are_described():
    from django.db import connection
    with connection.cursor() as cursor:
        tables = connection.introspection.table_names(cursor)
        assert {"auth_user", "auth_group", "django_migrations", "django_session"} <= set(tables), tables
        described = connection.introspection.get_table_description(cursor, "auth_group")
        same([(c.name, connection.introspection.get_field_type(c.type_code, c)) for c in described], [("id", "AutoField"), ("name", "CharField")])


@check
def constraints_are_found():
    from django.db import connection
    with connection.cursor() as cursor:
        found = connection.introspection.get_constraints(cursor, "auth_group")
    assert any(c["primary_key"] and c["columns"] == ["id"] for c in found.values()), found
    assert any(c["unique"] and c["columns"] == ["name"] for c in found.values()), found
    assert "class AuthGroup" in call("inspectdb", "auth_group")


@check
def data_is_dumped_and_loaded():
    _, group, _ = models()
    fresh("dumped")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "groups.json"
        path.write_text(call("dumpdata", "auth.group"))
        same("dumped" in [row["fields"]["name"] for row in json.loads(path.read_text())], True)
        group.objects.filter(name="dumped").delete()
        call("loaddata", str(path))
    same(group.objects.filter(name="dumped").count(), 1)


@check
def a_database_is_flushed_and_a_migration_undone_and_done_again():
    user, _, _ = models()
    call("flush", interactive=False)
    same(user.objects.count(), 0)
    call("migrate", "sessions", "zero")
    assert "[ ] 0001_initial" in call("showmigrations", "sessions")
    call("migrate", "sessions")
    assert "[X] 0001_initial" in call("showmigrations", "sessions")


def main():
    with served.served() as place:
        apps = ["contenttypes", "auth", "sessions"]
        settings.configure(
            INSTALLED_APPS=[f"django.contrib.{app}" for app in apps],
            DATABASES={"default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": place["dbname"],
                "USER": place["user"],
                "PASSWORD": place.get("password", ""),
                "HOST": place["host"],
                "PORT": place["port"],
            }},
            DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
            USE_TZ=True,
            TIME_ZONE="UTC",
            PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
            SECRET_KEY="for tests alone",
        )
        django.setup()
        try:
            return checks.run(CHECKS, {} if served.ORACLE == "postgres" else KNOWN, sys.argv[1:])
        finally:
            django.db.connections.close_all()


if __name__ == "__main__":
    sys.exit(main())
