# SPDX-License-Identifier: Apache-2.0
"""All views, in the order in which a page names them. Adding one is a module here and a line below."""

from insitu.dashboard.views import View, dask, fields, log, run, series, steer, training

_ALL: tuple[View, ...] = (run, fields, series, training, steer, log, dask)
VIEWS: dict[str, View] = {view.NAME: view for view in _ALL}
