{{ config(enabled='canvas_steps_received' in var('braze_streams')) }}
{{ braze.current_rows('canvas_steps_received') }}
