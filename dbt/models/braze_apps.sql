{{ config(enabled='apps' in var('braze_streams')) }}
{{ braze.current_rows('apps') }}
