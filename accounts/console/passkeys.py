"""The forms of passkeys, with labels in the languages of the pages."""

from allauth.mfa.webauthn.forms import AddWebAuthnForm, EditWebAuthnForm
from django import forms
from django.utils.translation import gettext_lazy as _


class AddPasskeyForm(AddWebAuthnForm):  # type: ignore[misc]  # it ships no types
    """A new passkey, and what it is called."""

    name = forms.CharField(label=_("Name"), required=False)


class RenamePasskeyForm(EditWebAuthnForm):  # type: ignore[misc]  # the same
    """Another name for a passkey."""

    name = forms.CharField(label=_("Name"))
