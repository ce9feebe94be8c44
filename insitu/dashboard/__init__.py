# SPDX-License-Identifier: Apache-2.0
"""What people see of a run: the dashboard in a browser, ``insitu top`` in a terminal, metrics, ``report.html``.

All of it is drawn from one *snapshot* (`insitu.controller.feed`) and from the run's directory, and nothing of it runs
in the controller: the dashboard is a process of its own, which asks the controller like any other viewer.

==============  ======================================================================================
`viewer`        asks a run that goes on, by its contact file
`sources`       one run to be shown: live, or from its directory
`derive`        what follows from a snapshot: rates, where the time went, who holds the run back
`stored`        reads series, profiles and fields from ``results.zarr``
`views`         one file for each view: which plots it has, and what they show; no browser, no sockets
`hub`           who looks at what; each update is made and encoded once for all who look at it
`server`        the pages, the token, the WebSocket
`launch`        the dashboard beside ``insitu run``
==============  ======================================================================================

Only `server`, `page` and the figures of `views` need the extra ``insitu[dashboard]``.
"""
