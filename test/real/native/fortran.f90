! Multiplies matrices that are made of the request's bytes, and prints statistics by a format of
! Fortran's. The types are those of include/handler.h.
module handler
  use, intrinsic :: iso_c_binding
  implicit none

  type, bind(c) :: handler_request
    integer(c_int32_t) :: struct_size, reserved
    type(c_ptr) :: bytes
    integer(c_int64_t) :: length
  end type

  type, bind(c) :: handler_response
    integer(c_int32_t) :: struct_size, reserved
    type(c_ptr) :: bytes
    integer(c_int64_t) :: capacity, length
    type(c_ptr) :: owner
  end type

contains

  integer(c_int32_t) function handler_abi_version() bind(c)
    handler_abi_version = 1
  end function

  integer(c_int32_t) function handler_entry(context, request, response) bind(c)
    type(c_ptr), value :: context
    type(handler_request), intent(in) :: request
    type(handler_response), intent(inout) :: response
    integer, parameter :: side = 48
    integer(c_int8_t), pointer :: input(:)
    character(kind=c_char), pointer :: output(:)
    real(c_double), allocatable :: values(:), matrix(:, :), product(:, :)
    character(len=160) :: text
    integer(c_int64_t) :: at
    integer :: used

    call c_f_pointer(request%bytes, input, [request%length])
    allocate (values(request%length))
    values = iand(int(input), 255)
    allocate (matrix(side, side))
    matrix = reshape([(0.0d0, at = 1, side*side)], [side, side])
    do at = 1, min(request%length, int(side*side, c_int64_t))
      matrix(mod(int(at) - 1, side) + 1, (int(at) - 1)/side + 1) = values(at)
    end do
    product = matmul(matrix, transpose(matrix))
    write (text, '(a, i0, a, f12.6, a, f24.6, a, es20.12)') 'bytes ', request%length, &
      ' mean ', sum(values)/max(1_c_int64_t, request%length), ' trace ', &
      sum([(product(int(at), int(at)), at = 1, side)]), ' norm ', norm2(product)
    used = len_trim(text)
    if (used > response%capacity) then
      handler_entry = 1
      return
    end if
    call c_f_pointer(response%bytes, output, [used])
    do at = 1, used
      output(at) = text(at:at)
    end do
    response%length = used
    handler_entry = 0
  end function

end module
