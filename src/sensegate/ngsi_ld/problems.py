"""Errors of NGSI-LD: the URI of the type of a problem document."""

from __future__ import annotations

from enum import StrEnum

from sensegate.errors import Conflict, NotFound, Overloaded, PermissionDenied, SensegateError, TooMuch
from sensegate.web.problems import BadRequest, status_of

_URI = "https://uri.etsi.org/ngsi-ld/errors/"


class ErrorType(StrEnum):
    """Error types of the specification."""

    INVALID_REQUEST = "InvalidRequest"
    BAD_REQUEST_DATA = "BadRequestData"
    ALREADY_EXISTS = "AlreadyExists"
    OPERATION_NOT_SUPPORTED = "OperationNotSupported"
    RESOURCE_NOT_FOUND = "ResourceNotFound"
    INTERNAL_ERROR = "InternalError"
    TOO_COMPLEX_QUERY = "TooComplexQuery"
    TOO_MANY_RESULTS = "TooManyResults"
    CONTEXT_NOT_AVAILABLE = "LdContextNotAvailable"
    NO_MULTI_TENANT_SUPPORT = "NoMultiTenantSupport"
    NONEXISTENT_TENANT = "NonexistentTenant"

    @property
    def uri(self) -> str:
        """URI of the type."""
        return f"{_URI}{self.value}"


_STATUS = {
    ErrorType.ALREADY_EXISTS: 409,
    ErrorType.OPERATION_NOT_SUPPORTED: 422,
    ErrorType.RESOURCE_NOT_FOUND: 404,
    ErrorType.INTERNAL_ERROR: 500,
    ErrorType.TOO_COMPLEX_QUERY: 403,
    ErrorType.TOO_MANY_RESULTS: 413,
    ErrorType.CONTEXT_NOT_AVAILABLE: 503,
    ErrorType.NO_MULTI_TENANT_SUPPORT: 501,
    ErrorType.NONEXISTENT_TENANT: 404,
}
_KIND_OF = {
    400: ErrorType.BAD_REQUEST_DATA,
    404: ErrorType.RESOURCE_NOT_FOUND,
    409: ErrorType.ALREADY_EXISTS,
    413: ErrorType.TOO_MANY_RESULTS,
    422: ErrorType.OPERATION_NOT_SUPPORTED,
}


class NgsiError(BadRequest):
    """A request that is refused with an error type of the specification."""

    def __init__(self, kind: ErrorType, problem: str, *, status: int = 0) -> None:
        """`status`: of HTTP; 0: that of the type."""
        super().__init__(problem, status=status or _STATUS.get(kind, 400))
        self.kind = kind


def bad_data(problem: str) -> NgsiError:
    """Return the error for data that are not as the specification demands."""
    return NgsiError(ErrorType.BAD_REQUEST_DATA, problem)


def problem_type(why: SensegateError) -> str:  # noqa: PLR0911 - one for each cause
    """Return the URI of the problem type of an error; empty: the specification has none."""
    match why:
        case NgsiError():
            return why.kind.uri
        case TooMuch():
            return ErrorType.TOO_MANY_RESULTS.uri
        case NotFound():
            return ErrorType.RESOURCE_NOT_FOUND.uri
        case Conflict():
            return ErrorType.ALREADY_EXISTS.uri
        case PermissionDenied() | Overloaded():
            return ""
    status = status_of(why)
    if status >= 500:
        return ErrorType.INTERNAL_ERROR.uri
    return _KIND_OF.get(status, ErrorType.INVALID_REQUEST).uri
