"""The connection string, in every form that libpq accepts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnus._dsn import parse
from magnus.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "hosts", "user", "password", "database"),
    [
        ("", (), None, None, None),
        ("postgresql://", (), None, None, None),
        ("postgres://db", (("db", None),), None, None, None),
        ("postgresql://u:p@db:5433/app", (("db", 5433),), "u", "p", "app"),
        ("postgresql://u:p%40%2F%3A%23@db/app", (("db", None),), "u", "p@/:#", "app"),
        ("postgresql://u:p#q@db/app", (("db", None),), "u", "p#q", "app"),
        ("postgresql://a,b:2/app", (("a", None), ("b", 2)), None, None, "app"),
        ("postgresql://[::1]:5/x", (("::1", 5),), None, None, "x"),
        ("postgresql:///app?host=/run/pg&port=6543", (("/run/pg", 6543),), None, None, "app"),
        ("postgresql://%2Frun%2Fpg/app", (("/run/pg", None),), None, None, "app"),
        ("postgresql://:5433/app", (("localhost", 5433),), None, None, "app"),
        ("postgresql:///app?user=u&password=s", (), "u", "s", "app"),
        ("host=db port=5433 user=u password=p dbname=app", (("db", 5433),), "u", "p", "app"),
        ("host=a,b port=1,2", (("a", 1), ("b", 2)), None, None, None),
        ("host=a,b port=7", (("a", 7), ("b", 7)), None, None, None),
        (r"host=db password='a b\'c\\d' dbname = 'my db' ", (("db", None),), None, r"a b'c\d", "my db"),
        ("password='' host=db", (("db", None),), None, "", None),
        ("port=5433", (("localhost", 5433),), None, None, None),
    ],
)
def test_every_form_is_read(text, hosts, user, password, database):
    """A URI, key=value pairs and the empty string give the parts that libpq finds in them."""
    dsn = parse(text)

    assert (dsn.hosts, dsn.user, dsn.password, dsn.database) == (hosts, user, password, database)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("mysql://u@h/d", "postgresql://"),
        ("postgresql://u:se#cr@et@h/d", "%40"),
        ("postgresql://u:se/cr@h/d", "%2F"),
        ("postgresql://u:se%zzcr@h", "%25"),
        ("postgresql://u:%ff@h", "UTF-8"),
        ("postgresql://h:secr/d", "%3A"),
        ("postgresql://h:0/d", "65535"),
        ("postgresql://[::1/d", "bracket"),
        ("postgresql://h/d?secr", "key=value"),
        ("host=h secr", "key=value"),
        ("host='h secr", "key=value"),
        ("host=a,b,c port=1,2", "number of ports"),
        ("host=h requirepeer=secr", "requirepeer"),
        ("host=h channel_binding=secr", "channel_binding"),
        ("host=h connect_timeout=secr", "connect_timeout"),
        ("host=h\0", "NUL"),
    ],
)
def test_a_bad_string_names_the_part_and_never_shows_it(text, word):
    """The error says what to write instead, and holds no piece of what may be a password."""
    with pytest.raises(ConfigError, match=word) as caught:
        parse(text)

    assert caught.value.field == "dsn"
    assert "secr" not in str(caught.value)
    assert "#cr" not in str(caught.value)


def test_parameters_are_sorted_by_who_understands_them():
    """TLS goes to the driver, settings go to the server, and what the pool does itself is left out."""
    dsn = parse("host=h sslmode=require search_path=a keepalives=1 gssencmode=disable connect_timeout=7 service=x")

    assert dict(dsn.parameters) == {"sslmode": "require", "service": "x"}
    assert dict(dsn.settings) == {"search_path": "a"}
    assert dsn.connect_timeout == 7.0


_text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


@given(user=_text, database=_text, password=_text)
def test_the_uri_reads_back_equal_without_the_password(user, database, password):
    """`uri()` of any user and database names is read back as it was, and the password is not in it."""
    quoted = [text.replace("\\", r"\\").replace("'", r"\'") for text in (user, database, password)]
    dsn = parse("host=h port=5 user='{}' dbname='{}' password='{}'".format(*quoted))

    again = parse(dsn.uri())

    assert (dsn.user, dsn.database, dsn.password) == (user, database, password)
    assert (again.user, again.database, again.hosts, again.password) == (user, database, dsn.hosts, None)


def test_the_password_is_not_in_the_repr():
    """A record of a connection string can be printed."""
    assert "hush" not in repr(parse("postgresql://u:hush@h"))
