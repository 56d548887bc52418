"""``python -m sleap_rtc`` is ``sleap-rtc``."""

from sleap_rtc.cli.main import main

if __name__ == "__main__":
    main()
