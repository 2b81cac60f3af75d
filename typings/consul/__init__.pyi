from consul import base as base
