{{ config(enabled='canvases_received' in var('braze_streams')) }}
{{ braze.current_rows('canvases_received') }}
