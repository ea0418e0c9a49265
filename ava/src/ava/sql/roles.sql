-- Roles belong to the cluster, not to the database, so they are made before the migrations, every time, and two
-- databases of one cluster may do it at the same moment: whoever comes second finds the work done.
do $$
declare
    wanted text;
    -- From 16 on, who creates a role is a member that may administer it but not take it.
    needed text := case when current_setting('server_version_num')::int < 160000 then 'member' else 'set' end;
begin
    foreach wanted in array array['ava_account', 'ava_operator'] loop
        if to_regrole(wanted) is null then
            begin
                execute format('create role %I nologin', wanted);
            exception when duplicate_object or unique_violation then
                null;
            end;
        end if;
        if not pg_has_role(current_user, wanted, needed) then
            begin
                execute format('grant %I to %I', wanted, current_user);
            exception when duplicate_object or unique_violation then
                null;
            end;
        end if;
    end loop;
end
$$;
