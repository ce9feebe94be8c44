# SPDX-License-Identifier: Apache-2.0
"""The process of a learner: ``python -m insitu.learning``, started by a staging node (`insitu.staging.keeper`)."""
