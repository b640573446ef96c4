{{ config(enabled='devices' in var('braze_streams')) }}
{{ braze.current_rows('devices') }}
