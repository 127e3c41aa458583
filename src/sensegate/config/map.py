"""The configuration of the console's map: the operator's own layers.

Part of `config.gateway`, which reads it.
"""

from __future__ import annotations

from typing import Annotated

from sensegate.config.setting import ConfigRecord, doc


class MapConfig(ConfigRecord, frozen=True):
    """Layers below the devices, in WGS-84 or CGCS2000 (not GCJ-02).

    A drawn map of China needs an approval number (審圖號).
    """

    tiles_directory: Annotated[
        str, doc("folder of tiles ZOOM/COLUMN/ROW.png (or jpg, webp), Web Mercator; empty: no base map")
    ] = ""
    tiles_approval: Annotated[str, doc("approval number of the tiles, printed on the map; required with them")] = ""
    overlay_file: Annotated[str, doc("GeoJSON drawn over the tiles; empty: none")] = ""
    overlay_approval: Annotated[str, doc("approval number of the overlay, printed on the map; required with it")] = ""
