# SPDX-License-Identifier: Apache-2.0
"""All views, in the order in which a page names them. Adding one is a module here and a line below."""

from insitu.dashboard.views import View, fields, log, run, series, steer

_ALL: tuple[View, ...] = (run, fields, series, steer, log)
VIEWS: dict[str, View] = {view.NAME: view for view in _ALL}
